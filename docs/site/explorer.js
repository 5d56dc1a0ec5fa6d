// The explorer: a view is a few knobs, arrays of results and charts; the address holds its state.
const VIEWS = JSON.parse(document.getElementById("views").textContent);
const main = document.getElementById("view");
const DARK = matchMedia("(prefers-color-scheme: dark)").matches;
let view, state, shown;

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const written = (value) => (typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value));
const median = (values) => {
  const sorted = values.filter((value) => value !== null).sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  if (!sorted.length) return null;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

// ---- arrays ----
const bytes = new Map();
const decoded = (cube) => {
  if (!bytes.has(cube)) bytes.set(cube, Uint8Array.from(atob(cube.data), (letter) => letter.charCodeAt(0)));
  return bytes.get(cube);
};

// The entries of an array at the state's values of the dimensions in `where`; those of all others are gone through.
function rows(cube, where, at = state) {
  const data = decoded(cube);
  const found = [];
  const walk = (depth, offset, row) => {
    if (depth === cube.dims.length) {
      const byte = data[offset];
      found.push({ ...row, value: byte === 255 ? null : Number((cube.low + byte * cube.step).toPrecision(7)) });
      return;
    }
    const { name, values, edges } = cube.dims[depth];
    const places = where.includes(name) ? [values.indexOf(at[name])] : values.keys();
    for (const place of places) {
      if (place < 0) continue;
      const further = { ...row, [name]: values[place] };
      if (edges && !where.includes(name)) [further[`${name}_low`], further[`${name}_high`]] = [edges[place], edges[place + 1]];
      walk(depth + 1, offset * values.length + place, further);
    }
  };
  walk(0, 0, {});
  return found;
}

function theoryOf(chart) {
  const { table, where, within } = chart.theory;
  const fitting = view.tables[table].filter((row) => where.every((name) => row[name] === state[name]));
  if (!within) return fitting;
  const { edges } = view.cubes[chart.rows.cube].dims.find(({ name }) => name === within);
  return fitting.filter(({ rate }) => rate >= edges[0] && rate <= edges[edges.length - 1]);
}

// ---- the plane, which the page computes ----
function planeSets() {
  const { landscape } = state;
  const { steps, landscapes } = view.plane;
  const { normals, lines, samples, lowest } = landscapes[landscape];
  const pick = dynamics.uniform(1000 + state.seed);
  const drawn = dynamics.normal(state.seed, steps).map((normal) => {
    const noise = state.noise_std * normal;
    const sample = samples[Math.floor(pick() * samples.length)];
    return Array.isArray(sample) ? [sample[0], sample[1] + noise] : sample + noise;
  });
  const path = dynamics.trajectory(landscape, [state.u, state.w], state.learning_rate, drawn);
  const points = path.map(([u, w], step) => ({ step, u, w, distance: Math.max(1e-17, dynamics.distance([u, w], normals)) }));
  const finite = points.filter(({ u, w }) => Number.isFinite(u) && Number.isFinite(w) && Math.abs(u) + Math.abs(w) < 1e6);
  const height = [];
  const side = 0.1;
  for (let i = -22; i < 22; i += 1) {
    for (let j = -22; j < 22; j += 1) {
      const [u, w] = [(i + 0.5) * side, (j + 0.5) * side];
      const mean = samples.reduce((sum, sample) => sum + dynamics.loss(landscape, [u, w], sample), 0) / samples.length;
      height.push({ u, w, u_low: i * side, u_high: (i + 1) * side, w_low: j * side, w_high: (j + 1) * side, loss: Math.log(0.05 + mean - lowest) });
    }
  }
  const ends = lines.flatMap(([a, b], line) => [-4, 4].map((far) => ({ line, u: far * a, w: far * b })));
  return { rows: finite, lines: ends, here: [{ u: state.u, w: state.w }], height };
}

// What a chart draws, by the names that its specification has.
function setsOf(chart) {
  const all = view.plane ? planeSets() : {
    rows: rows(view.cubes[chart.rows.cube], chart.rows.where),
    here: [{ ...state }],
    theory: chart.theory ? theoryOf(chart) : [],
  };
  return Object.fromEntries(chart.sets.map((name) => [name, all[name]]));
}

// ---- what is said in words ----
const NOT_RUN = 2;
const made = (where) => rows(view.cubes.status, where).filter(({ value }) => value !== NOT_RUN);
// Where there is no number: every run diverged, or the sweep has none here, and then which is next to it.
function unfinished(names) {
  if (made(names).length) return "Here every run diverged.";
  const { along } = view.readout;
  const places = made(names.filter((name) => name !== along)).map((row) => row[along]);
  if (!places.length) return "Not run here.";
  const order = view.controls.find(({ name }) => name === along);
  const next = nearest([...new Set(places)], state[along]);
  return `Not run here; nearest: ${order.label} ${written(next)}.`;
}
const exact = (distance) => (distance <= 1e-17 ? "0" : distance.toPrecision(2));
function said() {
  if (view.plane) {
    const { rows: path } = planeSets();
    const farthest = Math.max(...path.map(({ distance }) => distance));
    const diverged = path.length <= view.plane.steps ? ` It diverged after ${path.length} steps.` : "";
    const stays = farthest <= 1e-12;
    return {
      text: (stays ? "SGD stays on the line that it starts on" : "SGD does not reach a line in these steps")
        + `: its largest distance is ${exact(farthest)}, at the end ${exact(path.at(-1).distance)}.${diverged}`,
      numbers: { stays, farthest },
    };
  }
  const { readout } = view;
  if (readout.pairs) {
    const all = rows(view.cubes[readout.pairs], view.controls.map(({ name }) => name));
    const own = new Map(all.filter((row) => row.neuron === row.neuron_2).map((row) => [row.neuron, row.value]));
    const pairs = all.filter((row) => row.neuron < row.neuron_2 && row.value !== null && own.get(row.neuron) !== null);
    const alike = pairs.filter(({ value }) => value > readout.above).length;
    if (!pairs.length) return { text: "No such network was trained at this scale, or it diverged.", numbers: { share: null } };
    const share = (100 * alike) / pairs.length;
    return { text: `${share.toPrecision(2)} % of the pairs of neurons are correlated above ${readout.above}.`, numbers: { share } };
  }
  const names = view.controls.map(({ name }) => name);
  const values = rows(view.cubes[readout.cube], names).map(({ value }) => value);
  const finished = values.filter((value) => value !== null);
  const numbers = { median: median(values), finished: finished.length };
  const size = readout.of?.[state.variant] ?? readout.of;
  const ofAll = size ? ` of ${size}` : "";
  let text = finished.length
    ? `Here: ${readout.what} ${written(numbers.median)}${ofAll} (median of ${finished.length} of ${made(names).length} seeds, from ${written(Math.min(...finished))} to ${written(Math.max(...finished))}).`
    : unfinished(names);
  if (readout.onset) {
    const { along, level, label } = readout.onset;
    const line = rows(view.cubes[readout.cube], names.filter((name) => name !== along));
    const places = view.cubes[readout.cube].dims.find(({ name }) => name === along).values;
    numbers.onset = places.find((place) => median(line.filter((row) => row[along] === place).map(({ value }) => value)) >= level) ?? null;
    const before = places[places.indexOf(numbers.onset) - 1];
    const notYet = before === undefined ? "" : ` (at ${written(before)} not yet)`;
    text += numbers.onset === null ? " Nowhere at this noise have half of the weights vanished." : ` At this noise ${label} ${written(numbers.onset)} on${notYet}.`;
    const { table, end, label: words } = readout.theory;
    const rate = view.tables[table].find((row) => row.end === end && row.noise_std === state.noise_std)?.rate;
    if (rate !== undefined) {
      numbers.theory = rate;
      text += ` ${words[0].toUpperCase()}${words.slice(1)} ${rate.toPrecision(3)} on.`;
    }
  }
  return { text, numbers };
}

// ---- the address ----
const address = () => {
  const query = new URLSearchParams(view.controls.map(({ name }) => [name, String(state[name])]));
  return `#${view.id}?${query}`;
};
const nearest = (values, wanted) => values.reduce((best, value) => (Math.abs(value - wanted) < Math.abs(best - wanted) ? value : best));
// A layer is offered where the model has it.
const offered = ({ values, within }, at) => (within ? values.filter((value) => value <= at[within]) : values);
let moved = [];
function fromAddress() {
  const [id, query] = location.hash.slice(1).split("?");
  const wanted = VIEWS.find((one) => one.id === id) ?? VIEWS[0];
  const given = new URLSearchParams(query ?? "");
  moved = [];
  const values = {};
  for (const control of wanted.controls) {
    const { name, label, initial } = control;
    const listed = offered(control, values);
    const asked = given.get(name);
    const number = asked === null || asked.trim() === "" ? NaN : Number(asked);
    const exactly = listed.find((value) => String(value) === asked || value === number);
    const close = Number.isFinite(number) && typeof listed[0] === "number" ? nearest(listed, number) : control.values[initial];
    values[name] = exactly ?? close;
    if (asked !== null && exactly === undefined) moved.push(`${label} ${asked} is no stop here, so you see ${written(values[name])}.`);
  }
  return [wanted, values];
}

// ---- knobs ----
function knob(control) {
  const { name, label, kind, values } = control;
  const value = make("b", { textContent: written(state[name]) });
  let input;
  if (kind === "slider") {
    input = make("input", { type: "range", min: 0, max: values.length - 1, step: 1, value: values.indexOf(state[name]) });
    input.setAttribute("aria-valuetext", written(state[name]));
  } else {
    input = make("select", {}, ...control.words.map((text, place) => new Option(text, place)));
    input.value = values.indexOf(state[name]);
    hideUnoffered(input, control);
  }
  input.name = name;
  input.setAttribute("aria-label", label);
  input.addEventListener("input", () => change({ [name]: values[Number(input.value)] }));
  const words = make("span", {}, `${label}${kind === "slider" ? ": " : ""}`, ...(kind === "slider" ? [value] : []));
  return make("label", {}, words, input);
}
function hideUnoffered(input, control) {
  const there = offered(control, state);
  control.values.forEach((value, place) => { input.options[place].disabled = input.options[place].hidden = !there.includes(value); });
}
function turnKnobs() {
  for (const control of view.controls) {
    const { name, kind, values } = control;
    const input = main.querySelector(`[name="${name}"]`);
    input.value = values.indexOf(state[name]);
    if (kind === "choice") hideUnoffered(input, control);
    if (kind !== "slider") continue;
    input.setAttribute("aria-valuetext", written(state[name]));
    input.closest("label").querySelector("b").textContent = written(state[name]);
  }
}

// ---- charts ----
const ink = DARK ? "#d0d0d0" : "#333";
const LOOK = {
  background: null,
  axis: { labelColor: ink, titleColor: ink, gridColor: DARK ? "#333" : "#e5e5e5", domainColor: ink, tickColor: ink },
  legend: { labelColor: ink, titleColor: ink },
};
function save(name, address) {
  const link = make("a", { download: name, href: address });
  document.body.append(link);
  link.click();
  link.remove();
}
function csv(listed, titles = {}) {
  const names = [...new Set(listed.flatMap((row) => Object.keys(row)))].filter((name) => !/_(low|high)$/.test(name));
  return [names.map((name) => titles[name] ?? name), ...listed.map((row) => names.map((name) => row[name] ?? ""))].map((cells) => cells.join(",")).join("\n");
}
function boxOf(chart, place) {
  const drawing = make("div", { className: "drawing" });
  const asCsv = make("button", { type: "button", textContent: "CSV" });
  const asPng = make("button", { type: "button", textContent: "PNG" });
  asCsv.setAttribute("aria-label", `numbers of “${chart.title}” as CSV`);
  asPng.setAttribute("aria-label", `“${chart.title}” as PNG`);
  const className = chart.square ? "chart square" : "chart";
  const file = () => [view.id, place + 1, ...view.controls.map(({ name }) => `${name}=${written(state[name])}`)].join("_");
  asCsv.addEventListener("click", () => save(`${file()}.csv`, URL.createObjectURL(new Blob([csv(setsOf(chart).rows, chart.columns)], { type: "text/csv" }))));
  asPng.addEventListener("click", async () => save(`${file()}.png`, await shown[place].drawn.toImageURL("png", 2)));
  return make("section", { className }, make("h3", { textContent: chart.title }), drawing, asCsv, asPng);
}
async function draw(chart, box) {
  const sets = setsOf(chart);
  const spec = { ...structuredClone(chart.spec), description: chart.title, datasets: sets };
  spec.config = { ...spec.config, ...LOOK, aria: false };
  const drawing = box.querySelector(".drawing");
  if (chart.square) spec.height = drawing.clientWidth + (chart.below ?? 0);
  const { view: drawn } = await vegaEmbed(drawing, spec, { actions: false, renderer: chart.renderer ?? "svg" });
  // To a screen reader a picture with a name, not a thousand marks; what it shows here is said above, all of it in the CSV.
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", chart.title);
  drawing.setAttribute("aria-describedby", "readout");
  drawing.firstElementChild.setAttribute("aria-hidden", "true");
  drawn.addEventListener("click", (event, item) => click(item?.datum));
  return { chart, drawn };
}
// A click into a chart turns the knobs that its marks have values of.
function click(datum) {
  if (!datum) return;
  const turned = {};
  for (const { name, values, kind } of view.controls) {
    if (datum[name] === undefined) continue;
    if (values.includes(datum[name])) turned[name] = datum[name];
    else if (kind === "slider") turned[name] = nearest(values, datum[name]);
  }
  change(turned);
}

// ---- putting it together ----
let busy = false;
let again = false;
async function refresh() {
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  do {
    again = false;
    for (const { chart, drawn } of shown) {
      for (const [name, listed] of Object.entries(setsOf(chart))) drawn.data(name, listed);
      await drawn.runAsync();
    }
  } while (again);
  busy = false;
  main.dataset.ready = address();
}
function tell() {
  const { text, numbers } = said();
  const readout = document.getElementById("readout");
  readout.textContent = [...moved, text].join(" ");
  readout.dataset.numbers = JSON.stringify(numbers);
}
function change(values) {
  if (Object.keys(values).length) moved = [];
  Object.assign(state, values);
  for (const control of view.controls) {
    const there = offered(control, state);
    if (!there.includes(state[control.name])) state[control.name] = there[there.length - 1];
  }
  history.replaceState(null, "", address());
  turnKnobs();
  tell();
  return refresh();
}
async function open() {
  const [wanted, values] = fromAddress();
  state = values;
  if (view === wanted) {
    await change({});
    return;
  }
  view = wanted;
  document.title = `${view.title} mirrorsym: the explorer`;
  history.replaceState(null, "", address());
  for (const link of document.querySelectorAll("nav a")) {
    if (link.id === `to-${view.id}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const boxes = view.charts.map(boxOf);
  const form = make("form", { id: "knobs" }, ...view.controls.map(knob));
  form.addEventListener("submit", (event) => event.preventDefault());
  const readout = make("p", { id: "readout" });
  readout.setAttribute("role", "status");
  delete main.dataset.ready;
  main.replaceChildren(make("h2", { textContent: view.title }), make("p", { textContent: view.text }), form, readout, make("div", { id: "charts" }, ...boxes));
  tell();
  const current = view;
  const drawn = [];
  for (const [place, chart] of current.charts.entries()) {
    drawn.push(await draw(chart, boxes[place]));
    if (view !== current) return;
  }
  shown = drawn;
  main.dataset.ready = address();
}
shown = [];
addEventListener("hashchange", open);
open();
