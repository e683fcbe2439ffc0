"""seccomp: which system calls a process may still make. For good, for itself and all it starts.

Three answers. What a Python program needs is allowed, some of it for certain arguments only: signals to itself, threads
but no processes, pairs of sockets but no addresses. What only an attack asks for ends the process by SIGSYS, which
`Result` calls `denied`. All else fails with EPERM, since honest programs try a socket or a subprocess too.

A list of what is allowed, not of what is forbidden: what a later kernel brings is out until somebody puts it in.
Source: the kernel's userspace-api/seccomp_filter.rst; spec post-training 9.4. The numbers are those of the headers
asm/unistd_64.h and asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass

from zaya.envs.sandbox.kernel import MACHINE, system_call

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SYS_SECCOMP = 277 if MACHINE == "aarch64" else 317
_SET_MODE_FILTER = 1
_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NEWER = 449
"""System calls from this number on are answered as an old kernel would, so that the C library falls back."""

# name x86_64 aarch64, where - is none. The most frequent ones first: the list is walked from its start.
_ALLOWED = """
read 0 63, write 1 64, futex 202 98, mmap 9 222, munmap 11 215, close 3 57, fstat 5 80, lseek 8 62, newfstatat 262 79,
stat 4 -, lstat 6 -, getdents64 217 61, brk 12 214, mprotect 10 226, mremap 25 216, madvise 28 233, msync 26 227,
clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101, gettimeofday 96 169, time 201 -,
times 100 153, getrusage 98 165, getrlimit 97 163, sysinfo 99 179, uname 63 160, getrandom 318 278,
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigtimedwait 128 137,
rt_sigsuspend 130 133, sigaltstack 131 132, restart_syscall 219 128, pause 34 -, alarm 37 -, getitimer 36 102,
setitimer 38 103, exit 60 93, exit_group 231 94, set_robust_list 273 99, set_tid_address 218 96, rseq 334 293,
membarrier 324 283, sched_yield 24 124, sched_getaffinity 204 123, getcpu 309 168, gettid 186 178, getpid 39 172,
getppid 110 173, getpgrp 111 -, getpgid 121 155, getsid 124 156, getuid 102 174, geteuid 107 175, getgid 104 176,
getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups 115 158, pread64 17 67, pwrite64 18 68, readv 19 65,
writev 20 66, preadv 295 69, pwritev 296 70, sendfile 40 71, copy_file_range 326 285, fadvise64 221 223, flock 73 32,
fsync 74 82, fdatasync 75 83, ftruncate 77 46, fallocate 285 47, access 21 -, faccessat 269 48, faccessat2 439 439,
statx 332 291, statfs 137 43, fstatfs 138 44, readlink 89 -, readlinkat 267 78, getcwd 79 17, chdir 80 49, fchdir 81 50,
umask 95 166, dup 32 23, dup2 33 -, dup3 292 24, pipe 22 -, pipe2 293 59, poll 7 -, ppoll 271 73, select 23 -,
pselect6 270 72, epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, eventfd2 290 19,
recvfrom 45 207, shutdown 48 210
"""
_ALLOWED_IN_SCRATCH = """
open 2 -, openat 257 56, creat 85 -, truncate 76 45, rename 82 -, renameat 264 38, renameat2 316 276, mkdir 83 -,
mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35, symlink 88 -, symlinkat 266 36, link 86 -, linkat 265 37
"""
_ATTACKS = """
ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, process_madvise 440 440, pidfd_getfd 438 438,
pidfd_send_signal 424 424, kcmp 312 272, mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51,
move_mount 429 429, open_tree 428 428, fsopen 430 430, fsconfig 431 431, fsmount 432 432, fspick 433 433,
mount_setattr 442 442, unshare 272 97, setns 308 268, bpf 321 280, io_uring_setup 425 425, io_uring_enter 426 426,
io_uring_register 427 427, perf_event_open 298 241, kexec_load 246 104, kexec_file_load 320 294, init_module 175 105,
finit_module 313 273, delete_module 176 106, add_key 248 217, request_key 249 218, keyctl 250 219, userfaultfd 323 282,
reboot 169 142, swapon 167 224, swapoff 168 225, acct 163 89, settimeofday 164 170, clock_settime 227 112,
quotactl 179 60, setuid 105 146, setgid 106 144, setreuid 113 145, setregid 114 143, setresuid 117 147,
setresgid 119 149, setgroups 116 159, capset 126 91, iopl 172 -, ioperm 173 -, modify_ldt 154 -,
open_by_handle_at 304 265, name_to_handle_at 303 264, fanotify_init 300 262, personality 135 92
"""
_THREAD = 0x00010000 | 0x00000100 | 0x00000800
"""CLONE_THREAD, CLONE_VM and CLONE_SIGHAND: a thread has all three."""
_TERMINAL = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)
"""Requests of ioctl: whether it is a terminal, bytes to read, whether to block, the flag close-on-exec."""
_DESCRIPTOR = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1034)
"""Commands of fcntl: copies, flags, locks, seals. Not F_SETOWN, by which the kernel sends signals for one."""


@dataclass(frozen=True, slots=True)
class _Test:
    """That the bits of an argument under a mask have a value. Of 64 bits the lower half, or the upper."""

    argument: int
    value: int
    mask: int = 0xFFFFFFFF
    is_upper: bool = False


def restrict(*, has_scratch: bool) -> None:
    """Leave this process the calls it may make. Needs no new privileges; has_scratch: files may be opened to write."""
    if MACHINE not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no list of system calls for {MACHINE}")
    filters = _filter(os.getpid(), has_scratch=has_scratch)
    instructions = ctypes.create_string_buffer(b"".join(filters), 8 * len(filters))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(filters), ctypes.addressof(instructions)))
    system_call("seccomp", _SYS_SECCOMP, _SET_MODE_FILTER, 0, program)


def _filter(pid: int, *, has_scratch: bool) -> list[bytes]:
    machine_at, number_at = 4, 0
    program = [
        _instruction(_LOAD, machine_at),
        _instruction(_EQUAL, _ARCHITECTURES[MACHINE], 1, 0),  # system calls of another machine have other numbers
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, number_at),
    ]
    for number in _numbers(_ALLOWED + ("," + _ALLOWED_IN_SCRATCH if has_scratch else "")):
        program += _rule(number, _ALLOW)
    for number in _numbers(_ATTACKS):
        program += _rule(number, _KILL)
    for name, tests in _conditions(pid, has_scratch=has_scratch):
        (number,) = _numbers(name) or (None,)
        if number is not None:
            program += _rule(number, _ALLOW, tests)
    clone3 = 435
    program += _rule(clone3, _ERRNO | errno.ENOSYS)  # its flags are in memory; the C library then uses clone
    program += [_instruction(_AT_LEAST, _NEWER, 0, 1), _instruction(_RETURN, _ERRNO | errno.ENOSYS)]
    return [*program, _instruction(_RETURN, _ERRNO | errno.EPERM)]


def _conditions(pid: int, *, has_scratch: bool) -> list[tuple[str, list[_Test]]]:
    unix, stream, new_namespaces = 1, 1, 0x7E020000
    rules = [
        ("clone 56 220", [_Test(0, _THREAD, _THREAD | new_namespaces)]),
        ("kill 62 129", [_Test(0, pid)]),
        ("tgkill 234 131", [_Test(0, pid)]),
        ("prlimit64 302 261", [_Test(0, 0)]),
        ("prlimit64 302 261", [_Test(0, pid)]),
        ("socketpair 53 199", [_Test(0, unix), _Test(1, stream, 0xF)]),  # asyncio wakes itself up with one
        ("sendto 44 206", [_Test(4, 0), _Test(4, 0, is_upper=True)]),  # to no address
        *(("ioctl 16 29", [_Test(1, request)]) for request in _TERMINAL),
        *(("fcntl 72 25", [_Test(1, command)]) for command in _DESCRIPTOR),
        ("prctl 157 167", [_Test(0, 15)]),  # PR_SET_NAME
    ]
    if not has_scratch:
        writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
        rules += [("open 2 -", [_Test(1, 0, writing)]), ("openat 257 56", [_Test(2, 0, writing)])]
    return rules


def _rule(number: int, answer: int, tests: list[_Test] | None = None) -> list[bytes]:
    """Give that answer to that call, if its arguments pass; else go on behind, with its number loaded again."""
    if not tests:
        return [_instruction(_EQUAL, number, 0, 1), _instruction(_RETURN, answer)]
    body: list[bytes] = []
    length = sum(3 if test.mask != 0xFFFFFFFF else 2 for test in tests) + 1
    for test in tests:
        body.append(_instruction(_LOAD, 16 + 8 * test.argument + 4 * test.is_upper))
        if test.mask != 0xFFFFFFFF:
            body.append(_instruction(_AND, test.mask))
        body.append(_instruction(_EQUAL, test.value, 0, length - len(body) - 1))
    body.append(_instruction(_RETURN, answer))
    return [_instruction(_EQUAL, number, 0, length), *body, _instruction(_LOAD, 0)]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _numbers(table: str) -> list[int]:
    column = 2 if MACHINE == "aarch64" else 1
    numbers = [entry.split()[column] for entry in table.split(",")]
    return [int(number) for number in numbers if number != "-"]
