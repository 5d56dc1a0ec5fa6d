// Filters, order and search of the list of claims. The list is there without it; its state stands in the address.
"use strict";
(() => {
  const list = document.getElementById("claims");
  const claims = [...list.querySelectorAll(".claim")];
  const tools = document.getElementById("claim-tools");
  const count = document.getElementById("claim-count");
  const FIELDS = ["verdict", "nature", "kind", "weight", "section", "figure"];
  const ORDER = { verdict: ["supported", "supported with limits", "not supported", "not decidable at this scale"],
    weight: ["core", "supporting", "detail"] };
  const given = new URLSearchParams(location.search);

  const place = (field, value) => (ORDER[field] ? String(ORDER[field].indexOf(value)) : value);
  const compare = (one, other) => one.localeCompare(other, "en", { numeric: true });
  const labelled = (text, control) => {
    const label = document.createElement("label");
    label.append(text, control);
    tools.append(label);
    return control;
  };
  const choice = (name, options) => {
    const select = document.createElement("select");
    select.name = name;
    for (const [value, text] of options) select.add(new Option(text, value));
    select.value = given.get(name) ?? "";
    if (select.selectedIndex < 0) select.value = "";
    return select;
  };

  const controls = {};
  for (const field of FIELDS) {
    const values = [...new Set(claims.map((claim) => claim.dataset[field]))];
    values.sort((one, other) => compare(place(field, one), place(field, other)));
    controls[field] = labelled(field, choice(field, [["", "all"], ...values.map((value) => [value, value])]));
  }
  controls.sort = labelled("order by", choice("sort", [["", "weight, as listed"], ...FIELDS.map((name) => [name, name])]));
  const search = document.createElement("input");
  search.type = "search";
  search.name = "search";
  search.value = given.get("search") ?? "";
  controls.search = labelled("search", search);
  const all = document.createElement("button");
  all.type = "button";
  all.textContent = "show all";
  all.hidden = true;
  all.addEventListener("click", () => {
    for (const control of Object.values(controls)) control.value = "";
    show();
    search.focus();
  });
  count.after(all);
  tools.hidden = count.hidden = false;

  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const claim of claims) {
      const fits = FIELDS.every((field) => !controls[field].value || claim.dataset[field] === controls[field].value);
      const text = `${claim.id} ${claim.textContent}`.toLowerCase();
      claim.hidden = !(fits && words.every((word) => text.includes(word)));
      shown += !claim.hidden;
    }
    const by = controls.sort.value || "weight";
    const ordered = [...claims].sort((one, other) => compare(place(by, one.dataset[by]), place(by, other.dataset[by])));
    list.replaceChildren(...ordered);
    for (const group of new Set(ordered.filter((claim) => !claim.hidden).map((claim) => claim.dataset[by]))) {
      const members = ordered.filter((claim) => !claim.hidden && claim.dataset[by] === group);
      const heading = document.createElement("h2");
      heading.className = "group";
      heading.textContent = `${group.charAt(0).toUpperCase()}${group.slice(1)} (${members.length})`;
      members[0].before(heading);
    }
    all.hidden = shown === claims.length;
    count.textContent = `${shown} of ${claims.length} shown`;
    const state = new URLSearchParams();
    for (const [name, control] of Object.entries(controls)) if (control.value) state.set(name, control.value);
    const query = state.toString();
    history.replaceState(null, "", location.pathname + (query && `?${query}`) + location.hash);
  };
  const open = () => {
    const claim = location.hash.startsWith("#claim-") && document.getElementById(location.hash.slice(1));
    if (!claim) return;
    claim.hidden = false;
    claim.querySelector("details").open = true;
    claim.scrollIntoView();
    claim.focus({ preventScroll: true });
  };
  tools.addEventListener("input", show);
  addEventListener("hashchange", open);
  show();
  open();
})();
