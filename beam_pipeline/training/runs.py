"""Versions of a selector: `OUT/v1`, `OUT/v2` ..., each there as a whole or, while it is trained, as `v3.unfinished`.

version = new_version("models/selector")             # makes models/selector/v3.unfinished
...                                                  # train into version.unfinished, write the files
version.finish()                                     # "models/selector/v3"
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from typing import IO, Any

from beam_pipeline.training.checkpoints import checkpoints_of, remove_checkpoint

_NAME = re.compile(r"v(\d+)(\.unfinished)?")
_UNFINISHED = ".unfinished"
#: The files by which this process holds versions, by path: closed, one would be let go.
_HELD: dict[str, IO[bytes]] = {}
#: What an unfinished version was begun with.
_BEGUN = "begun.json"


class VersionError(ValueError):
    """A version that can't be begun or gone on with; the message says what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Version:
    """A version of a selector, by the folder of all versions and its number."""

    output: str
    number: int

    @property
    def path(self) -> str:
        """Where it stands when it is whole."""
        return os.path.join(self.output, f"v{self.number}")

    @property
    def unfinished(self) -> str:
        """Where it stands until then."""
        return self.path + _UNFINISHED

    def begin(self, told: dict[str, Any]) -> None:
        """Write down what it is begun with: all that has to be the same for it to be gone on with."""
        _write(os.path.join(self.unfinished, _BEGUN), told)

    def check_same(self, told: dict[str, Any]) -> None:
        """Raise `VersionError` unless it was begun with the same; what differs is named."""
        try:
            with open(os.path.join(self.unfinished, _BEGUN), encoding="utf-8") as file:
                begun = {**json.load(file)}
        except (OSError, ValueError, TypeError) as error:
            if checkpoints_of(self.unfinished):
                raise VersionError(
                    f"{os.path.join(self.unfinished, _BEGUN)} can't be read, which says what it was begun with; "
                    "leave out --resume for a new version"
                ) from error
            begun = {}  # Killed before it was begun: there is nothing to go on from, and nothing that differs.
            self.begin(told)
        now = json.loads(json.dumps(told))
        for name in sorted(begun):
            if begun[name] != now.get(name):
                other = "other" if name.endswith("s") else "another"
                differs = f"{other} {name.replace('_', ' ')} ({_difference(begun[name], now.get(name))})"
                raise VersionError(
                    f"{self.unfinished} was begun with {differs}; "
                    "give the same, or leave out --resume for a new version"
                )

    def hold(self) -> None:
        """Keep other trainings out until this process ends, however it ends; a second call does nothing.

        Raises:
          VersionError: another process is at it.
        """
        path = os.path.abspath(self.unfinished)
        if path in _HELD:
            return
        file = open(os.path.join(path, _BEGUN), "rb+")  # noqa: SIM115
        if not _lock(file):
            file.close()
            raise VersionError(f"{self.unfinished} is being trained by another process; wait for it, or stop it")
        _HELD[path] = file

    def is_trained_elsewhere(self) -> bool:
        """Whether another process is at it, where the file system tells."""
        path = os.path.abspath(self.unfinished)
        if path in _HELD:
            return False  # Closed, a second file would let go of the lock, too.
        try:
            with open(os.path.join(path, _BEGUN), "rb+") as file:
                return not _lock(file)
        except OSError:
            return False

    @contextlib.contextmanager
    def kept_only_with_a_checkpoint(self) -> Iterator[None]:
        """Remove it when what is done meanwhile fails before there is a checkpoint to go on from."""
        try:
            yield
        except BaseException:
            path = os.path.abspath(self.unfinished)
            # The first rank alone holds it.
            if path in _HELD and not checkpoints_of(path):
                shutil.rmtree(path, ignore_errors=True)
                _HELD.pop(path).close()
            raise

    def _let_others_read(self) -> None:
        """Give the weights, which safetensors writes for their owner alone, the rights of other new files."""
        begun = os.path.join(self.unfinished, _BEGUN)
        if not os.path.exists(begun):
            return
        mode = stat.S_IMODE(os.stat(begun).st_mode)
        for entry in os.scandir(self.unfinished):
            if entry.is_file():
                os.chmod(entry.path, mode)

    def finish(self) -> str:
        """Take away what only a resumed training needs, and give it its name."""
        self._let_others_read()
        # The last first: a kill meanwhile leaves the best one, or one from which a resumed training finds it again.
        for path in reversed(checkpoints_of(self.unfinished)):
            remove_checkpoint(path)
        for name in (_BEGUN, "training_args.bin"):
            if os.path.exists(os.path.join(self.unfinished, name)):
                os.remove(os.path.join(self.unfinished, name))
        held = _HELD.pop(os.path.abspath(self.unfinished), None)
        os.rename(self.unfinished, self.path)
        if held:
            held.close()
        return self.path


def in_yaml(path: str) -> str:
    """A version's path as a profile says it: a colon or a comma would end the word, and a number would be one."""
    return path if re.fullmatch(r"[\w/.~][\w/.~-]*/v\d+", path) else json.dumps(path, ensure_ascii=False)


def new_version(output: str) -> Version:
    """Begin the version after the highest there is, whole or not.

    Raises:
      VersionError: the folder can't be written to.
    """
    try:
        os.makedirs(output, exist_ok=True)
        while True:
            version = Version(output, max((number for number, _ in _versions(output)), default=0) + 1)
            try:
                os.mkdir(version.unfinished)
                return version
            except FileExistsError:
                continue  # Another training took it this moment.
    except OSError as error:
        raise VersionError(f"cannot write to {output}: {error.strerror or error}; --output is a directory") from error


def unfinished_version(output: str) -> Version | None:
    """The highest version that was begun and is not whole."""
    return next(iter(unfinished_versions(output)), None)


def unfinished_versions(output: str) -> list[Version]:
    """All that were begun and are not whole, the highest first."""
    numbers = [number for number, whole in _versions(output) if not whole]
    return [Version(output, number) for number in sorted(numbers, reverse=True)]


def take_up(output: str, told: dict[str, Any]) -> Version:
    """Go on with the highest unfinished version that was begun with the same and that nobody is at.

    Raises:
      VersionError: there is none; of several it is told why not the highest.
    """
    errors = [VersionError(f"nothing in {output} was left unfinished; leave out --resume")]
    for version in unfinished_versions(output):
        try:
            version.check_same(told)
            version.hold()
            return version
        except VersionError as error:
            errors.append(error)
    raise errors[min(1, len(errors) - 1)]


def _versions(output: str) -> list[tuple[int, bool]]:
    names = os.listdir(output) if os.path.isdir(output) else []
    return [(int(match[1]), match[2] is None) for name in names if (match := _NAME.fullmatch(name))]


def _write(path: str, told: dict[str, Any]) -> None:
    with open(f"{path}.tmp", "w", encoding="utf-8") as file:
        file.write(json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


def _lock(file: IO[bytes]) -> bool:
    """Lock a file; whether nobody else has. Unlike flock's, no loading process inherits it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass  # A file system without locks.
    return True


def _difference(begun: Any, now: Any) -> str:
    """What was and what is; of several values the first that differs, by its name.

    >>> _difference({"batch": 8, "seed": 0}, {"batch": 8, "seed": 1})
    'seed: 0, now 1'
    """
    if isinstance(begun, dict) and isinstance(now, dict):
        name = next(name for name in sorted(begun.keys() | now.keys()) if begun.get(name) != now.get(name))
        return f"{name}: {_difference(begun.get(name), now.get(name))}"
    return f"{_short(begun)}, now {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
