"""What ptrace(2) and the system calls are called on Linux: numbers, structures and registers."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Collection, Mapping
from typing import Final

import attrs

__all__ = [
    "AT_CWD",
    "AT_FILTER",
    "CALL_INFO",
    "FILTERED",
    "GO_ON",
    "MACHINES",
    "NEXT_CALL",
    "OPTIONS",
    "PAGE",
    "SETOPTIONS",
    "SYSCALL_STOP",
    "TRACEME",
    "WALL",
    "Info",
    "Machine",
    "ptrace",
    "stop_only_at",
]

TRACEME: Final = 0
NEXT_CALL: Final = 24
SETOPTIONS: Final = 0x4200
_GETREGSET: Final = 0x4204
_SETREGSET: Final = 0x4205
CALL_INFO: Final = 0x420E
# TRACESYSGOOD, TRACECLONE, TRACESECCOMP, EXITKILL.
OPTIONS: Final = 0x1 | 0x8 | 0x80 | 0x100000
SYSCALL_STOP: Final = 0x80
AT_FILTER: Final = 3
GO_ON: Final = 7
FILTERED: Final = 7
WALL: Final = 0x40000000
AT_CWD: Final = -100
PAGE: Final = 4096
_NO_CALL: Final = -1
_GENERAL: Final = 1
_ARM_CALL: Final = 0x404


class Info(ctypes.Structure):
    """``struct ptrace_syscall_info`` at the beginning of a call."""

    op: int
    number: int
    args: ctypes.Array[ctypes.c_uint64]
    _fields_ = (
        ("op", ctypes.c_uint8),
        ("arch", ctypes.c_uint32),
        ("instruction", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
        ("rest", ctypes.c_uint64 * 4),
    )


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    return libc


def ptrace(request: int, thread: int, address: int = 0, data: int = 0) -> None:
    if _libc().ptrace(request, thread, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("then", ctypes.c_uint8),
        ("otherwise", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("first", ctypes.POINTER(_Instruction)))


_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _STOP = 0x7FFF0000, 0x7FF00000
_NO_NEW_PRIVILEGES, _SET_FILTER, _FILTER_MODE = 38, 22, 2


def stop_only_at(numbers: Collection[int]) -> None:
    """From now on the tracer of this process is told of these system calls, and the others pass at full speed."""
    last = len(numbers)
    tests = [_Instruction(_IF_EQUAL, last - place, 0, number) for place, number in enumerate(numbers)]
    code = [
        _Instruction(_LOAD),
        *tests,
        _Instruction(_RETURN, 0, 0, _ALLOW),
        _Instruction(_RETURN, 0, 0, _STOP),
    ]
    program = _Program(len(code), (_Instruction * len(code))(*code))
    _control(_NO_NEW_PRIVILEGES, 1)
    _control(_SET_FILTER, _FILTER_MODE, ctypes.addressof(program))


def _control(option: int, value: int, address: int = 0) -> None:
    arguments = (ctypes.c_ulong(each) for each in (value, address, 0, 0))
    if _libc().prctl(option, *arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@attrs.frozen
class Shape:
    """A system call: our name for it, and where it names its files (descriptor and path), and its flags."""

    name: str
    files: tuple[tuple[int | None, int | None], ...]
    flags: int = 0


_FD: Final = ((0, None),)
_PATH: Final = ((None, 0),)
_AT: Final = ((0, 1),)
_SHAPES: Final = {
    "open": Shape("open", _PATH, flags=1),
    "openat": Shape("open", _AT, flags=2),
    "read": Shape("read", _FD),
    "pread64": Shape("read", _FD),
    "write": Shape("write", _FD),
    "pwrite64": Shape("write", _FD),
    "writev": Shape("writev", _FD),
    "pwritev": Shape("writev", _FD),
    "fsync": Shape("sync", _FD),
    "fdatasync": Shape("sync", _FD),
    "ftruncate": Shape("truncate", _FD),
    "fallocate": Shape("allocate", _FD),
    "fchmod": Shape("chmod", _FD),
    "fchown": Shape("chown", _FD),
    "fchmodat": Shape("chmod", _AT),
    "utimensat": Shape("utime", _AT),
    "rename": Shape("rename", ((None, 0), (None, 1))),
    "renameat": Shape("rename", ((0, 1), (2, 3))),
    "renameat2": Shape("rename", ((0, 1), (2, 3))),
    "link": Shape("link", ((None, 0), (None, 1))),
    "linkat": Shape("link", ((0, 1), (2, 3))),
    "unlink": Shape("unlink", _PATH),
    "unlinkat": Shape("unlink", _AT),
    "mkdir": Shape("mkdir", _PATH),
    "mkdirat": Shape("mkdir", _AT),
    "rmdir": Shape("rmdir", _PATH),
    "chmod": Shape("chmod", _PATH),
    "truncate": Shape("truncate", _PATH),
}


def _numbered(**numbers: int) -> dict[int, Shape]:
    return {number: _SHAPES[name] for name, number in numbers.items()}


@attrs.frozen
class Machine:
    """What differs between processors: numbers of calls, and where in the registers what stands.

    Args:
        call: The register with the number of the call; None is a set of its own.
    """

    shapes: Mapping[int, Shape]
    registers: int
    result: int
    size: int
    call: int | None

    def skip(self, thread: int) -> None:
        """No call is made."""
        if self.call is not None:
            self._set(thread, self.call, _NO_CALL)
        else:
            number = ctypes.c_int(_NO_CALL)
            vector = _Vector(ctypes.addressof(number), ctypes.sizeof(number))
            ptrace(_SETREGSET, thread, _ARM_CALL, ctypes.addressof(vector))

    def answer(self, thread: int, value: int) -> None:
        """Of a call that has ended."""
        self._set(thread, self.result, value)

    def resize(self, thread: int, size: int) -> None:
        """Of a write that begins."""
        self._set(thread, self.size, size)

    def _set(self, thread: int, place: int, value: int) -> None:
        registers = (ctypes.c_int64 * self.registers)()
        vector = _Vector(ctypes.addressof(registers), ctypes.sizeof(registers))
        ptrace(_GETREGSET, thread, _GENERAL, ctypes.addressof(vector))
        registers[place] = value
        ptrace(_SETREGSET, thread, _GENERAL, ctypes.addressof(vector))


MACHINES: Final[Mapping[str, Machine]] = {
    "x86_64": Machine(
        _numbered(
            open=2,
            openat=257,
            read=0,
            pread64=17,
            write=1,
            pwrite64=18,
            writev=20,
            pwritev=296,
            fsync=74,
            fdatasync=75,
            truncate=76,
            ftruncate=77,
            fallocate=285,
            chmod=90,
            fchmod=91,
            fchown=93,
            fchmodat=268,
            utimensat=280,
            rename=82,
            renameat=264,
            renameat2=316,
            link=86,
            linkat=265,
            unlink=87,
            unlinkat=263,
            mkdir=83,
            mkdirat=258,
            rmdir=84,
        ),
        registers=27,
        result=10,
        size=12,
        call=15,
    ),
    "aarch64": Machine(
        _numbered(
            openat=56,
            read=63,
            pread64=67,
            write=64,
            pwrite64=68,
            writev=66,
            pwritev=70,
            fsync=82,
            fdatasync=83,
            truncate=45,
            ftruncate=46,
            fallocate=47,
            fchmod=52,
            fchown=55,
            fchmodat=53,
            utimensat=88,
            renameat=38,
            renameat2=276,
            linkat=37,
            unlinkat=35,
            mkdirat=34,
        ),
        registers=34,
        result=0,
        size=2,
        call=None,
    ),
}
