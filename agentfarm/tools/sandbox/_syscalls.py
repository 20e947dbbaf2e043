"""Which system calls a sandbox may make, and with which arguments.

Drawn from the list in syscalls(2) and the page of each call. What stands in no
group is refused. Left out with intent, because they reach further than the sandbox
or open large parts of the kernel that its programs do not need:

- other processes: ptrace, process_vm_*, process_madvise, process_mrelease,
  pidfd_getfd, kcmp
- namespaces and file systems: unshare, setns, chroot, pivot_root, mount and its
  successors (fsopen, fsmount, move_mount, open_tree, mount_setattr), quotactl,
  name_to_handle_at, open_by_handle_at, fanotify_*
- kernel machinery: io_uring_*, io_setup and the rest of Linux AIO, bpf,
  perf_event_open, userfaultfd, vmsplice, the keyrings, memfd_secret, modify_ldt,
  NUMA placement, remap_file_pages, cachestat (tells what other sandboxes read)
- the machine: clocks, modules, kexec, reboot, swap, accounting, the kernel log,
  ports, host and domain name, vhangup; sync and syncfs, which write out every
  other user's data (libc's sync returns nothing, so programs do not notice)
"""

from __future__ import annotations

from typing import NamedTuple


class Compare(NamedTuple):
    """One argument of a call, masked, equals a value.

    The kernel cuts an `int` argument to 32 bits before it looks, a filter sees 64:
    so every comparison masks what the kernel will ignore.
    """

    argument: int
    mask: int
    value: int


class Group(NamedTuple):
    """System calls that are treated alike.

    Attributes:
        names: The calls, as syscalls(2) spells them.
        when: Alternatives, of which one must hold, each a conjunction.
        error: The errno to fail with; 0 allows the call. A call in no group, or with
            arguments that fit no alternative, fails with EPERM.
    """

    names: tuple[str, ...]
    when: tuple[tuple[Compare, ...], ...] = ((),)
    error: int = 0


def allow(names: str, *when: tuple[Compare, ...]) -> Group:
    return Group(tuple(names.split()), when or ((),))


# The kernel's numbers, not this platform's: the controller may run elsewhere.
ENOSYS = 38
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
SOCK_STREAM, SOCK_DGRAM = 1, 2
IPPROTO_TCP, IPPROTO_UDP = 6, 17
MSG_OOB = 1
S_IFIFO, S_IFREG, S_IFSOCK = 0x1000, 0x8000, 0xC000
INT = 0xFFFF_FFFF

# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET} of clone(2). CLONE_NEWTIME lies in the
# byte that clone takes for the exit signal: only clone3 and unshare know it.
NEW_NAMESPACE = 0x7E02_0000

# ioctl_tty(2), ioctl_ficlone(2), netdevice(7) and fcntl's cousins. TIOCSTI and
# TIOCLINUX (input put into the terminal of whoever started us) and TIOCSETD (loads
# kernel modules) are the reason for a list of what may pass.
IOCTLS = (
    *(0x5401, 0x5402, 0x5403, 0x5404),  # TCGETS, TCSETS{,W,F}
    *(0x802C_542A, 0x402C_542B, 0x402C_542C, 0x402C_542D),  # the same, version 2
    *(0x5409, 0x540A, 0x540B, 0x5425),  # TCSBRK, TCXONC, TCFLSH, TCSBRKP
    *(0x540E, 0x5422, 0x5429),  # TIOCSCTTY, TIOCNOTTY, TIOCGSID
    *(0x540F, 0x5410),  # TIOCGPGRP, TIOCSPGRP
    *(0x5413, 0x5414),  # TIOCGWINSZ, TIOCSWINSZ
    *(0x8004_5430, 0x4004_5431, 0x5441),  # TIOCGPTN, TIOCSPTLCK, TIOCGPTPEER
    *(0x5411, 0x541B, 0x5421),  # TIOCOUTQ, FIONREAD, FIONBIO
    *(0x5450, 0x5451, 0x5452),  # FIONCLEX, FIOCLEX, FIOASYNC
    *(0x4004_9409, 0x4020_940D),  # FICLONE, FICLONERANGE
    *(0x8905, 0x8910, 0x8912, 0x8913),  # SIOCATMARK, SIOCGIF{NAME,CONF,FLAGS}
    *(0x8915, 0x8919, 0x891B),  # SIOCGIF{ADDR,BRDADDR,NETMASK}
    *(0x8921, 0x8927, 0x8933),  # SIOCGIF{MTU,HWADDR,INDEX}
)


def is_int(argument: int, value: int) -> Compare:
    return Compare(argument, INT, value)


def file_type(argument: int, *types: int) -> tuple[tuple[Compare, ...], ...]:
    """Alternatives for a mode argument: its file type is one of these."""
    return tuple((Compare(argument, 0xF000, each),) for each in types)


def internet(transport: int, protocol: int) -> tuple[tuple[Compare, ...], ...]:
    """Alternatives for socket(2): this transport over IPv4 or IPv6."""
    # Flags such as SOCK_CLOEXEC share the argument of the type, above its low nibble.
    return tuple(
        (is_int(0, family), Compare(1, 0xF, transport), is_int(2, protocol))
        for family in (AF_INET, AF_INET6)
    )


POLICY = (
    # Files and folders: the mounts and their limits decide what can be reached.
    allow(
        "access chdir chmod chown close close_range copy_file_range creat dup dup2 "
        "dup3 faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat "
        "fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock "
        "fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd "
        "getdents getdents64 getxattr lchown lgetxattr link linkat listxattr "
        "llistxattr lremovexattr lseek lsetxattr lstat mkdir mkdirat newfstatat open "
        "openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read "
        "readahead readlink readlinkat readv removexattr rename renameat renameat2 "
        "rmdir sendfile setxattr splice stat statfs statx symlink symlinkat "
        "sync_file_range tee truncate umask unlink unlinkat utime utimensat utimes "
        "write writev"
    ),
    # Named pipes and socket files, as mkfifo and bind make them, but no devices.
    allow("mknod", *file_type(1, 0, S_IFREG, S_IFIFO, S_IFSOCK)),
    allow("mknodat", *file_type(2, 0, S_IFREG, S_IFIFO, S_IFSOCK)),
    # Terminals, pipes, sockets: what shells, pty and subprocess ask of them.
    allow("ioctl", *((is_int(1, code),) for code in IOCTLS)),
    # Memory of the process itself; the cgroup and rlimits say how much.
    allow(
        "brk madvise map_shadow_stack membarrier memfd_create mincore mlock mlock2 "
        "mlockall mmap mprotect mremap mseal msync munlock munlockall munmap "
        "pkey_alloc pkey_free pkey_mprotect"
    ),
    # Programs and threads.
    allow(
        "arch_prctl execve execveat exit exit_group fork get_robust_list prctl rseq "
        "set_robust_list set_tid_address vfork wait4 waitid"
    ),
    # A user namespace would give the job every capability within it.
    allow("clone", (Compare(0, NEW_NAMESPACE, 0),)),
    # Its flags lie in memory, out of a filter's sight: libc falls back to clone.
    Group(("clone3",), error=ENOSYS),
    # Ask for the execution domain or name the usual one; the others switch off ASLR
    # or map address zero.
    allow("personality", (is_int(0, 0),), (is_int(0, INT),)),
    # Identity, priority and limits: without capabilities they only ask or lower.
    allow(
        "capget capset getegid geteuid getgid getgroups getpgid getpgrp getpid "
        "getppid getpriority getresgid getresuid getrlimit getsid gettid getuid "
        "ioprio_get ioprio_set sched_get_priority_max "
        "sched_get_priority_min sched_getaffinity sched_getattr sched_getparam "
        "sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr "
        "sched_setparam sched_setscheduler sched_yield setfsgid setfsuid setgid "
        "setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid "
        "setuid"
    ),
    # Of resource limits only one's own: the supervisor has the same uid, and a limit on
    # its processor time would end it.
    allow("prlimit64", (is_int(0, 0),)),
    # A process may shut itself in further.
    allow("landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp"),
    # Signals reach the processes of the same pid namespace.
    allow(
        "kill pause pidfd_open pidfd_send_signal restart_syscall rt_sigaction "
        "rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend "
        "rt_sigtimedwait rt_tgsigqueueinfo sigaltstack signalfd signalfd4 tgkill tkill"
    ),
    # Clocks are read, timers set.
    allow(
        "alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday "
        "nanosleep setitimer time timer_create timer_delete timer_getoverrun "
        "timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime "
        "times"
    ),
    # Waiting for something to happen.
    allow(
        "epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait "
        "eventfd eventfd2 inotify_add_watch inotify_init inotify_init1 "
        "inotify_rm_watch poll ppoll pselect6 select"
    ),
    # Locks between threads and processes.
    allow("futex futex_requeue futex_wait futex_waitv futex_wake"),
    # Pipes, System V and POSIX queues; the sandbox has an IPC namespace of its own.
    allow(
        "mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink "
        "msgctl msgget msgrcv msgsnd pipe pipe2 semctl semget semop semtimedop shmat "
        "shmctl shmdt shmget"
    ),
    # Of sockets only local ones, TCP and UDP, of which the kernel has loaded the code:
    # AF_VSOCK would pass by the network namespace to a virtual machine's host, and
    # netlink, AF_ALG, AF_PACKET, SCTP or DCCP pull in drivers and modules.
    allow(
        "socket",
        (is_int(0, AF_UNIX),),
        *internet(SOCK_STREAM, 0),
        *internet(SOCK_STREAM, IPPROTO_TCP),
        *internet(SOCK_DGRAM, 0),
        *internet(SOCK_DGRAM, IPPROTO_UDP),
    ),
    allow("socketpair", (is_int(0, AF_UNIX),)),
    # What is then done with a
    allow(
        "accept accept4 bind connect getpeername getsockname getsockopt listen "
        "recvfrom recvmmsg recvmsg setsockopt shutdown"
    ),
    # Out-of-band data: a rare path, through which a local socket was once a way into
    # the kernel (CVE-2025-38236).
    allow("sendmsg", (Compare(2, MSG_OOB, 0),)),
    allow("sendto sendmmsg", (Compare(3, MSG_OOB, 0),)),
    # Chance, and facts about the machine and the process.
    allow("getcpu getrandom getrusage sysinfo uname"),
)
