"""Streams over a bad network: no row lost, none twice, and no bytes that are not those that were asked for.

    from helpers.streams import check_ranges, steady
    check_ranges()                                        # before load_dataset
    stream = load_dataset(..., split="train", streaming=True)
    for row in steady(stream): ...

`datasets` and `huggingface_hub` try again by themselves for about 23 seconds, then a row raises and the loop is over.
They also believe what the server sends: a file that is replaced while it is read gives rows that nobody wrote.
"""

import errno
import sys
import time

PATIENCE = 3600.0  # seconds
TRANSIENT = {
    *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE),
    *(errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN),
}
VERSIONS: dict[str, str] = {}  # of each file that was read in this process


def steady(dataset, patience: float = PATIENCE, start: int = 0):
    """Yields the rows of a streamed data set; when the network fails it waits and goes on with the next row.

    Args:
        dataset: an IterableDataset whose order is the same twice: unshuffled, or shuffled with a seed.
        patience: how long to try without a row, in seconds; between two tries 1, 2, 4 and so on up to 60 seconds.
        start: how many rows to leave out at the beginning.

    Raises:
        Exception: what the library raised, if it is not the network, or after `patience`.
    """
    done, failed_since, wait = start, None, 1.0
    while True:
        try:
            for row in dataset.skip(done) if done else dataset:
                done, failed_since, wait = done + 1, None, 1.0
                yield row
            return
        except Exception as error:
            failed_since = failed_since or time.monotonic()
            if not is_network(error) or time.monotonic() + wait - failed_since > patience:
                raise
            first = " ".join(str(error).split())[:200]
            print(f"stream, after row {done}: {first}; trying again in {wait:.0f} s", file=sys.stderr, flush=True)
            time.sleep(wait)
            wait = min(2 * wait, 60.0)


def is_network(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, is a network or a server in trouble: something that may pass."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return status in (408, 429) or status >= 500
        module = type(error).__module__.split(".")[0]
        if module in ("httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "requests", "urllib3"):
            return True
        if isinstance(error, (ConnectionError, TimeoutError)) or getattr(error, "errno", None) in TRANSIENT:
            return True
        error = error.__cause__
    return False


def check_ranges() -> None:
    """Makes `hf://` files, which `load_dataset` streams, refuse bytes that are not those that were asked for.

    A server that ignores Range sends the whole file: the part is cut out of it. A file that has changed since it was
    first read in this process raises an OSError: its parts do not fit together. A file that was replaced before that
    cannot be told from the right one; a revision that is a commit never changes.
    """
    import fsspec
    from huggingface_hub import HfFileSystem, constants
    from huggingface_hub.hf_file_system import HfFileSystemFile
    from huggingface_hub.utils import hf_raise_for_status, http_backoff

    class CheckedFile(HfFileSystemFile):
        def _fetch_range(self, start: int, end: int) -> bytes:
            headers = {**self.fs._api._build_hf_headers(), "range": f"bytes={start}-{end - 1}"}
            response = http_backoff("GET", self.url(), headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
            hf_raise_for_status(response)
            answers = [*response.history, response]  # the Hub answers with the file's digest and sends elsewhere
            tags = [tag for one in answers if (tag := one.headers.get("x-linked-etag") or one.headers.get("etag"))]
            part, expected = response.headers.get("content-range"), f"bytes {start}-{end - 1}/{self.size}"
            if (tags and VERSIONS.setdefault(self.url(), tags[0]) != tags[0]) or part not in (None, expected):
                raise OSError(f"{self.path} has changed on the server while it was read: name a revision, a commit")
            content = response.content if response.status_code == 206 else response.content[start:end]
            if len(content) != end - start:
                raise ConnectionError(f"{self.path}: {len(content)} bytes instead of {end - start}")
            return content

    class CheckedHub(HfFileSystem):
        def _open(self, path, mode="rb", block_size=None, revision=None, **kwargs):
            block_size = self.block_size if block_size is None else block_size
            if mode != "rb" or block_size == 0:
                return super()._open(path, mode, block_size, revision, **kwargs)
            kwargs |= {} if block_size is None else {"block_size": block_size}
            return CheckedFile(self, path, mode=mode, revision=revision, **kwargs)

    fsspec.register_implementation("hf", CheckedHub, clobber=True)
