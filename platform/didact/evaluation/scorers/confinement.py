"""Runs a program that nobody has read, as `python confinement.py FD`, and says over the pipe FD what became of it.

The request comes over stdin as JSON. First the process gives up what the program must not have: processor time,
memory, large files, other processes, sockets, writing outside its working folder, privileges. Linux holds this by
resource limits, seccomp and Landlock; where it does not, an audit hook of Python does, which is a fence and no wall.
This file imports nothing of didact, since it begins a process of its own.
"""

import ctypes
import json
import math
import os
import platform
import resource
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

_SHOWN = 300
_EPERM, _ENOSYS = 1, 38
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000
# Numbers of system calls by machine: the architecture's mark; refused ones (socket connect socketpair ptrace fork vfork
# execve execveat process_vm_*, then chmod, chown and xattr of all kinds, then signals sent in other ways, then io_uring
# and pidfd, which would go around these); `clone`; those whose first argument is a process.
_CALLS: dict[str, tuple[int, str, int, tuple[int, ...]]] = {
    "x86_64": (
        0xC000003E,
        "41 42 53 101 57 58 59 322 310 311 90 91 268 452 92 93 94 260 188 189 190 197 198 199 "
        "200 129 297 424 425 434 438",
        56,
        (62, 234),
    ),
    "aarch64": (
        0xC00000B7,
        "198 203 199 117 221 281 270 271 52 53 452 54 55 5 6 7 14 15 16 130 138 240 424 425 434 438",
        220,
        (129, 131),
    ),
}
_CLONE3 = 435
# Landlock's rights that change something: write, remove, make; from its versions 2 and 3 on also move and truncate.
_WRITES = sum(1 << bit for bit in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12))
_SINCE = {2: 1 << 13, 3: 1 << 14}
_FENCED: tuple[str, ...] = (
    "socket.",
    "ctypes.",
    "subprocess.",
    "shutil.",
    "pty.",
    "os.exec",
    "os.fork",
    "os.kill",
    "os.posix_spawn",
)
_FENCED += ("os.spawn", "os.startfile", "os.system", "os.chmod", "os.chown", "os.link", "os.symlink")
_PATHS = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.utime", "os.chdir")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main() -> None:
    """Read the request, confine this process, run the program, tell what became of it."""
    request = json.loads(sys.stdin.buffer.read())
    pipe, seal = int(sys.argv.pop()), request.pop("seal")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the seal is not to be read again

    def tell(**said: Any) -> None:
        os.write(pipe, json.dumps({"seal": seal, **said}).encode() + b"\n")

    tell(loose=confine(request))
    space: dict[str, Any] = {"__name__": "answer", "__builtins__": __builtins__}
    error = _run(request["code"], "answer.py", space)
    tell(code=error)
    for test in request["tests"] if error is None else ():
        tell(test=_run(test, "tests.py", space))
    tell(end=True)
    os._exit(0)  # threads that the program left behind are not waited for


def _run(code: str, name: str, space: dict[str, Any]) -> str | None:
    """What the code raised, in words; None where it ran to its end."""
    try:
        exec(compile(code, name, "exec"), space)
    except BaseException as error:  # noqa: BLE001 - also an exit and an interrupt are failures of the program
        return f"{type(error).__name__}: {_words(error)}"[:_SHOWN]
    return None


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - the program's own exceptions may raise here again
        return "(its message cannot be written)"


def confine(request: dict[str, Any]) -> list[str]:
    """Give up what a program must not have.

    Args:
        request: `seconds` of a processor, `memory` and `file` in bytes, `kernel` (whether Linux's means are used).

    Returns:
        What stays possible, in words; empty where all is limited.
    """
    loose = []
    processor = math.ceil(time.process_time() + request["seconds"])
    for kind, most in (
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_AS, request["memory"]),
        (resource.RLIMIT_FSIZE, request["file"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        try:
            # A second more as the hard limit: the process ends by a signal that says why.
            resource.setrlimit(kind, (most, most + 1))
        except (ValueError, OSError):
            loose.append(_RESOURCES[kind])
    kernel = request["kernel"] and sys.platform == "linux"
    steps: tuple[Callable[[], bool], ...] = (_no_privileges, _own_folder_only, _no_calls)
    held = [kernel and step() for step in steps]
    if not all(held[1:]):
        sys.addaudithook(_fence(os.getcwd()))
        loose += [] if held[1] else ["writing outside the working folder by other means than Python's own"]
        loose += [] if held[2] else ["sockets and other processes by other means than Python's own"]
    return loose


_RESOURCES = {
    resource.RLIMIT_CPU: "processor time",
    resource.RLIMIT_AS: "memory",
    resource.RLIMIT_FSIZE: "the size of files",
    resource.RLIMIT_NOFILE: "the number of open files",
    resource.RLIMIT_CORE: "core dumps",
}


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _no_privileges() -> bool:
    """Nothing that root may do and others may not, now or through another program."""
    nothing = struct.pack("=6I", 0, 0, 0, 0, 0, 0)
    return _libc().prctl(38, 1, 0, 0, 0) == 0 and _libc().capset(struct.pack("=Ii", 0x20080522, 0), nothing) == 0


def _own_folder_only() -> bool:
    """Landlock (Linux 5.13): files are changed below the working folder only; `/dev/null` may be written to."""
    call = _libc().syscall
    version = call(444, None, 0, 1)
    if version < 1:
        return False
    rights = _WRITES | sum(right for since, right in _SINCE.items() if version >= since)
    rules = call(444, struct.pack("=Q", rights), 8, 0)
    if rules < 0:
        return False
    for place, allowed in ((".", rights), ("/dev/null", 1 << 1)):
        at = os.open(place, os.O_PATH)
        done = call(445, rules, 1, struct.pack("=Qi", allowed, at), 0)
        os.close(at)
        if done != 0:
            return False
    held = call(446, rules, 0) == 0
    os.close(rules)
    return held


def _no_calls() -> bool:
    """Seccomp: no sockets, no other processes, no other programs, no signals to others."""
    machine = platform.machine()
    if machine not in _CALLS:
        return False
    steps = list(_filter(*_CALLS[machine]))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    return _libc().prctl(22, 2, program, 0, 0) == 0


def _filter(mark: int, refused: str, clone: int, aimed: tuple[int, ...]) -> Iterator[tuple[int, int, int, int]]:
    """The filter in classic BPF: code, jump where true, jump where false, value. Jumps count steps to leave out."""
    yield from ((_LOAD, 0, 0, 4), (_EQUAL, 1, 0, mark), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0))
    yield from ((_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERRNO | _EPERM))
    for number in map(int, refused.split()):
        yield from ((_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM))
    # The C library makes threads by `clone` where there is no `clone3`, whose flags a filter cannot see.
    yield from ((_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERRNO | _ENOSYS))
    yield from ((_EQUAL, 0, 4, clone), (_LOAD, 0, 0, 16), (_ANY_BIT, 1, 0, _CLONE_THREAD))
    yield from ((_RETURN, 0, 0, _ERRNO | _EPERM), (_RETURN, 0, 0, _ALLOW))
    for number in aimed:
        yield from ((_EQUAL, 0, 4, number), (_LOAD, 0, 0, 16), (_EQUAL, 1, 0, os.getpid()))
        yield from ((_RETURN, 0, 0, _ERRNO | _EPERM), (_RETURN, 0, 0, _ALLOW))
    yield (_RETURN, 0, 0, _ALLOW)


def _fence(folder: str) -> Callable[[str, tuple[Any, ...]], None]:
    inside = os.path.realpath(folder) + os.sep

    def is_outside(path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False  # a file that is open already
        return not (os.path.realpath(os.fsdecode(path)) + os.sep).startswith(inside)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(_FENCED):
            raise PermissionError(f"{event} is not allowed here")
        if event == "open" and (arguments[2] or 0) & _WRITING and is_outside(arguments[0]):
            raise PermissionError(f"writing {arguments[0]} is not allowed here")
        if event.startswith(_PATHS) and any(is_outside(each) for each in arguments[:2]):
            raise PermissionError(f"{event} is not allowed outside the working folder")

    return hook


if __name__ == "__main__":
    main()
