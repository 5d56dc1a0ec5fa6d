"""Downloads with progress, tries again and a checksum; what goes wrong is one sentence that names its cause."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reproduction.errors import UserError
from reproduction.files import explain

CERTIFICATES = "name the file of trusted certificates in REQUESTS_CA_BUNDLE"


class DataError(UserError, ValueError):
    """Data could not be had or prepared. The message says in one sentence what is wrong, where and what to do."""


def download(what: str, url: str, checksum: str | None, path: Path, attempts: int) -> Path:
    """Download a file, or find it where it was downloaded to, and verify it.

    Args:
        what: what it is, for messages.
        url: its address, http or https.
        checksum: ``md5:…`` or ``sha256:…``; None takes what comes.
        path: where it goes.
        attempts: how often it is tried while the connection, not the answer, is at fault.

    Raises:
        DataError: if it cannot be had, or its checksum differs. Nothing is left behind.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    advice = "check the configured address, or give a local archive"
    known = checksum and checksum.lower()
    with leaving_nothing(path.parent):
        for attempt in range(1, attempts + 1):
            try:
                downloader = pooch.HTTPDownloader(progressbar=True)
                return Path(pooch.retrieve(url, known, path.name, str(path.parent), downloader=downloader))
            except requests.RequestException as error:
                reason = _reason(error, url)
                if attempt == attempts or not _passing(error):
                    raise DataError(f"{what} cannot be downloaded from {url}: {reason}; {advice}") from error
                time.sleep(attempt)
            except OSError as error:
                if error.errno is None:  # requests' own: the file of certificates is not there
                    raise DataError(f"{what} cannot be downloaded: {_one_line(error)}; {CERTIFICATES}") from error
                raise DataError(f"the download of {what}: {explain(error, path)}") from error
            except ValueError as error:
                raise DataError(
                    f"what {url} sent does not have the configured checksum {checksum}; "
                    "configure the address and checksum of the same archive"
                ) from error
    raise AssertionError("unreachable")


def _passing(error: Exception) -> bool:
    """Say whether a failed download may go well when it is tried again."""
    import requests

    if isinstance(error, requests.HTTPError):
        return error.response is not None and error.response.status_code >= 500
    broken = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, broken) and not _refused(error)


def _refused(error: Exception) -> bool:
    """Say whether a certificate, or a proxy's answer, is at fault, which waiting does not change."""
    return "CERTIFICATE" in str(error) or "Tunnel connection failed: 4" in str(error)


def _reason(error: Exception, url: str) -> str:
    """Say in a few words why a download failed: the messages of requests run over lines and repeat themselves."""
    import requests

    used = None
    with suppress(ValueError):  # of an address that cannot be taken apart
        used = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    proxy = f"the proxy {_without_password(used)}" if used else "a proxy on the way"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        who = proxy if error.response.status_code == requests.codes.proxy_authentication_required else "the server"
        return f"{who} answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.ProxyError):
        answer = re.search(r"Tunnel connection failed: ([^'\")]+)", str(error))
        return f"{proxy} answers {answer[1]}" if answer else f"{proxy} cannot be reached"
    malformed = isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema)
    if isinstance(error, requests.exceptions.InvalidProxyURL) or (used and malformed and url not in str(error)):
        return f"{proxy} is not usable ({_without_password(_one_line(error))}); see HTTPS_PROXY in the environment"
    if isinstance(error, requests.exceptions.SSLError):
        if "CERTIFICATE" in str(error):
            said = re.search(r"certificate verify failed: ([^()]+)", str(error))
            why = f" ({said[1].strip()})" if said else ""
            return f"the server's certificate is not trusted{why}; {CERTIFICATES}"
        return "the encrypted connection (TLS) fails"
    if isinstance(error, requests.Timeout):
        return "the server does not answer in time"
    if isinstance(error, requests.ConnectionError):
        return "there is no connection to the server"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection breaks off"
    return "it is not a usable http or https address"


def _without_password(text: str) -> str:
    return re.sub(r"://[^/@\s]+@", "://…@", text)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def leaving_nothing(folder: Path) -> Iterator[None]:
    """Remove the folder and those above it again where they were made inside and something went wrong."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise
