"""Starts a command where it can see and touch nothing but what it is shown: Linux namespaces, by system calls.

    python -I -S tools/isolation.py '{"isolated": true, "root": "/tmp/x", "steps": [["show", "/usr"], ...], ...}'

`sandbox.py` starts it; see `Plan` for what it is told. Three processes stand in a row: this one in new namespaces, the
init of the new process namespace, which ends when this one does and takes everything with it, and the command,
without any rights. The command cannot reach the first two: they are not in its sight, or not its to touch.

It needs Linux 5.12 for `mount_setattr`, which makes a whole tree of mounts read-only, later ones in it too.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import NamedTuple  # a dataclass would import ten times as much, and this starts for each exercise

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
AT_RECURSIVE, MNT_DETACH = 0x8000, 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
SYS_MOUNT_SETATTR, KEYCTL_JOIN_SESSION_KEYRING = 442, 1
SYS_PIVOT_ROOT_AND_KEYCTL = {"x86_64": (155, 250), "aarch64": (41, 219)}
DEVICES = ("null", "zero", "full", "random", "urandom")
NOBODY = 65534
SCRATCH = "/scratch"


class Plan(NamedTuple):
    """What to run, and what it may see and use."""

    command: list[str]
    environment: dict[str, str]
    isolated: bool  # without it, only the limits of a process are set
    root: str  # an empty folder, on which the new root is mounted
    steps: list[list[str]]  # ["show", path], ["hide", path] and ["write", path, text], from the root downwards
    scratch: int  # bytes that it may write in all
    address_space: int  # bytes for each process
    processes: int  # threads count, too


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    for limit, value in (("AS", plan.address_space), ("FSIZE", plan.scratch), ("CORE", 0), ("NOFILE", 256)):
        try:
            lower(limit, value)
        except (ValueError, OSError):  # macOS knows some limits only by name
            if plan.isolated:
                raise
    if not plan.isolated:
        os.execve(plan.command[0], plan.command, plan.environment)
    try:
        enter_namespaces()
    except OSError as error:
        sys.exit(f"this system does not let us ({error})")
    init = os.fork()
    if init == 0:
        become_init(plan)
    _, status = os.waitpid(init, 0)
    sys.exit(os.waitstatus_to_exitcode(status) and 1)


def lower(limit: str, value: int) -> None:
    """Lowers a limit of this process, such as "AS"; one that is lower already stays."""
    import resource  # not on Windows, where only `Plan` is imported from here

    which = getattr(resource, f"RLIMIT_{limit}")
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def call(name: str, *arguments: object) -> None:
    """A function of the C library that returns -1 when it fails.

    Raises:
        OSError: it failed; the message names the function.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [each.encode() if isinstance(each, str) else each for each in arguments]
    arguments = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    if getattr(libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def enter_namespaces() -> None:
    """Leaves the network, the processes and the mounts of the system.

    The command will be `nobody` in there. Outside that is the user who checks, or nobody indeed if that is root, who
    may write several users into the map, from outside only: so a helper stays outside.

    Raises:
        OSError: the system does not allow it.
    """
    parent, root = os.getpid(), os.getuid() == 0
    users, groups = f"{NOBODY} {os.getuid()} 1\n", f"{NOBODY} {os.getgid()} 1\n"
    if root:
        try:
            os.setgroups([])
            users = groups = f"0 0 1\n{NOBODY} {NOBODY} 1\n"
        except PermissionError:  # the root of a container, with an ordinary user's rights
            root = False
    ours, theirs = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(theirs)
        try:
            if os.read(ours, 1):
                if not root:
                    write(f"/proc/{parent}/setgroups", "deny")
                write(f"/proc/{parent}/uid_map", users)
                write(f"/proc/{parent}/gid_map", groups)
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
    os.close(ours)
    write("/proc/self/oom_score_adj", "1000")  # if the whole machine runs out of memory, this goes first
    call("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
    os.write(theirs, b"!")
    os.close(theirs)
    failed = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])
    if failed:
        raise OSError(failed, f"user map: {os.strerror(failed)}")
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
    write("/proc/sys/user/max_user_namespaces", "0")  # in ours: no further ones, in which it would be root again


def write(path: str, text: str, new: bool = False) -> None:
    with open(path, "x" if new else "w", encoding="utf-8") as file:
        file.write(text)


def become_init(plan: Plan) -> None:
    """Builds the new root, starts the command in it, and waits for it; with this process ends every other."""
    try:
        call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
        enter_root(plan)
        command = os.fork()
        if command == 0:
            lower("NPROC", plan.processes)
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            os.execve(plan.command[0], plan.command, plan.environment)
    except BaseException as error:
        print(f"this system does not let us ({error})", file=sys.stderr, flush=True)
        os._exit(1)
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)  # nobody may look into it
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):  # the pipes are the command's
        os.dup2(null, descriptor)
    while True:
        ended, status = os.wait()
        if ended == command:
            os._exit(os.waitstatus_to_exitcode(status) and 1)


def enter_root(plan: Plan) -> None:
    """Makes a root of what is shown, all read-only but the scratch folder, and leaves the old one."""
    pivot_root, keyctl = SYS_PIVOT_ROOT_AND_KEYCTL[os.uname().machine]
    os.umask(0o022)
    call("mount", None, "/", None, MS_REC | MS_PRIVATE, None)
    mount_tmpfs(plan.root, "size=1m,mode=755")
    for action, path, *text in plan.steps:
        place(action, path, plan.root + path, *text)
    for name in ("proc", "scratch", "dev"):
        os.makedirs(f"{plan.root}/{name}", exist_ok=True)
    for name in DEVICES:
        write(f"{plan.root}/dev/{name}", "", new=True)
    os.symlink(SCRATCH, f"{plan.root}/dev/shm")
    read_only = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    call("syscall", SYS_MOUNT_SETATTR, -1, plan.root, AT_RECURSIVE, read_only, ctypes.sizeof(read_only))
    for name in DEVICES:
        call("mount", f"/dev/{name}", f"{plan.root}/dev/{name}", None, MS_BIND, None)
    call("mount", "proc", f"{plan.root}/proc", "proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
    mount_tmpfs(plan.root + SCRATCH, f"size={plan.scratch},nr_inodes=4096,mode=1777", MS_NOEXEC)
    os.chdir(plan.root)
    call("syscall", pivot_root, ".", ".")
    call("umount2", ".", MNT_DETACH)
    os.chdir(SCRATCH)
    call("syscall", keyctl, KEYCTL_JOIN_SESSION_KEYRING, None)  # not the keys of who checks


def mount_tmpfs(target: str, options: str, flags: int = 0) -> None:
    call("mount", "sandbox", target, "tmpfs", flags | MS_NOSUID | MS_NODEV, options)


def place(action: str, path: str, target: str, text: str = "") -> None:
    """One step of the plan: shows a file or folder of the system, covers a folder, or writes a file into our root."""
    if action == "hide":
        if os.path.isdir(target):
            mount_tmpfs(target, "size=64k,mode=755")
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if action == "write":
        write(target, text, new=True)
    elif os.path.islink(path):
        if not os.path.lexists(target):
            os.symlink(os.readlink(path), target)
    else:
        if not os.path.exists(target):
            os.mkdir(target) if os.path.isdir(path) else write(target, "", new=True)
        call("mount", path, target, None, MS_BIND | MS_REC, None)


if __name__ == "__main__":
    main()
