"""Builds the system-call filter of the sandbox: no sockets, signals, ptrace or mounts, and no new processes.

The filter is a classic BPF program over `struct seccomp_data` (call number at byte 0, architecture at 4, first
argument at 16), as seccomp(2) describes it. A refused call fails with EPERM, so that Python raises PermissionError.
"""

from __future__ import annotations

import platform
import struct

EPERM, ENOSYS = 1, 38
CLONE_THREAD = 0x10000
CLONE3 = 435
LOAD, EQUAL, ABOVE, HAS_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER_AT, ARCHITECTURE_AT, ARGUMENT_AT = 0, 4, 16
X32 = 0x40000000
ANYWHERE = {"pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434}
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE = {"x86_64": 56, "aarch64": 220}
STARTING = {
    "x86_64": {"fork": 57, "vfork": 58, "execve": 59, "execveat": 322},
    "aarch64": {"execve": 221, "execveat": 281},
}
NEVER = {
    "x86_64": {
        "socket": 41, "kill": 62, "ptrace": 101, "rt_sigqueueinfo": 129, "mount": 165, "tkill": 200, "tgkill": 234,
        "unshare": 272, "rt_tgsigqueueinfo": 297, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
        "bpf": 321,
    },
    "aarch64": {
        "socket": 198, "kill": 129, "ptrace": 117, "rt_sigqueueinfo": 138, "mount": 40, "tkill": 130, "tgkill": 131,
        "unshare": 97, "rt_tgsigqueueinfo": 240, "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271,
        "bpf": 280,
    },
}  # fmt: skip


def build_filter(processes: int, system: str = "", machine: str = "") -> bytes:
    """The filter as consecutive ``struct sock_filter``; empty where call numbers are not known.

    Args:
        processes: Processes a program may have, its own included; 1 forbids fork and exec, threads stay allowed.
        system: Operating system, empty for this one's.
        machine: Processor name, empty for this one's.
    """
    machine = machine or platform.machine()
    if (system or platform.system()) != "Linux" or machine not in ARCHITECTURES:
        return b""
    refuse = (RETURN, 0, 0, ERRNO | EPERM)
    lines = [(LOAD, 0, 0, ARCHITECTURE_AT), (EQUAL, 1, 0, ARCHITECTURES[machine]), (RETURN, 0, 0, KILL)]
    lines += [(LOAD, 0, 0, NUMBER_AT), (ABOVE, 0, 1, X32), refuse]
    refused = {**NEVER[machine], **ANYWHERE, **(STARTING[machine] if processes == 1 else {})}
    for number in refused.values():
        lines += [(EQUAL, 0, 1, number), refuse]
    if processes == 1:
        lines += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ERRNO | ENOSYS)]  # the C library then falls back to clone
        lines += [(EQUAL, 0, 3, CLONE[machine]), (LOAD, 0, 0, ARGUMENT_AT), (HAS_BIT, 1, 0, CLONE_THREAD), refuse]
    return b"".join(struct.pack("HBBI", *line) for line in [*lines, (RETURN, 0, 0, ALLOW)])
