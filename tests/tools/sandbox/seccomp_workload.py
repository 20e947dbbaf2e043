"""What model-written code and its tests do all day; prints "fine" at its end."""

import array
import asyncio
import concurrent.futures
import fcntl
import mmap
import multiprocessing
import multiprocessing.shared_memory
import os
import pathlib
import pty
import resource
import select
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import termios
import time
import uuid


def processes(method):
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        assert pool.map(abs, [-1, -2, -3]) == [1, 2, 3]
    with context.Manager() as manager:
        assert manager.list([1])[0] == 1


def shared_memory():
    block = multiprocessing.shared_memory.SharedMemory(create=True, size=4096)
    block.buf[:4] = b"farm"
    block.close()
    block.unlink()


def threads():
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(len, ["a", "bb"])) == 3
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        assert list(pool.map(abs, [-1])) == [1]


def shell():
    line = "mkfifo p && (echo ok > p &) && cat p | tr a-z A-Z | sort; sync; rm p"
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True)
    assert done.stdout == b"OK\n"
    sleeper = subprocess.Popen(["sleep", "60"], start_new_session=True)
    os.killpg(sleeper.pid, signal.SIGKILL)
    assert sleeper.wait() == -signal.SIGKILL


def files():
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = pathlib.Path(folder, "a")
        path.write_text("x")
        shutil.copytree(folder, folder + "-copy")
        shutil.rmtree(folder + "-copy")
        os.link(path, path.with_name("b"))
        path.with_name("c").symlink_to("a")
        path.chmod(0o600)
        os.utime(path)
        os.statvfs(path)
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.posix_fallocate(file.fileno(), 0, 4096)
            os.fsync(file)
            mmap.mmap(file.fileno(), 4096)[0] = 65
    os.sync()
    os.close(os.memfd_create("m"))


def database():
    with tempfile.TemporaryDirectory(dir=".") as folder:
        base = sqlite3.connect(folder + "/base.db")
        base.execute("pragma journal_mode=wal")
        base.execute("create table t (a)")
        base.execute("insert into t values (1)")
        base.commit()
        base.close()


def sockets():
    assert socket.getaddrinfo("localhost", 80)
    socket.gethostname()
    left, right = socket.socketpair()
    left.sendmsg(
        [b"a"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))]
    )
    socket.recv_fds(right, 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind(("127.0.0.1", 0))
        here.sendto(b"b", here.getsockname())
        assert here.recv(1) == b"b"
    ssl.create_default_context()
    ssl.RAND_bytes(8)


async def serve():
    async def echo(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    for host in ("127.0.0.1", "localhost"):
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()
        server.close()
    child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    assert (await child.communicate(b"in"))[0] == b"in"
    await asyncio.to_thread(time.sleep, 0)


def machine():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.getrusage(resource.RUSAGE_SELF)
    os.getloadavg(), os.cpu_count(), os.sched_getaffinity(0), uuid.uuid1()
    signal.setitimer(signal.ITIMER_REAL, 60)
    signal.alarm(0)
    os.nice(1)
    os.setuid(os.getuid())
    os.getrandom(8)
    select.epoll().close()


def tests():
    pathlib.Path("test_it.py").write_text("def test_it(tmp_path, capfd): pass\n")
    line = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "test_it.py",
    ]
    done = subprocess.run(line, capture_output=True, text=True)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


if __name__ == "__main__":
    os.chdir("/tmp")  # noqa: S108 - the one of the sandbox
    for method in ("fork", "spawn", "forkserver"):
        processes(method)
    for work in (
        shared_memory,
        threads,
        shell,
        files,
        database,
        sockets,
        machine,
        tests,
    ):
        work()
    asyncio.run(serve())  # noqa: TID251 - a program of its own
    if "terminal" in sys.argv:
        terminal = pty.openpty()
        termios.tcgetattr(terminal[1])
        os.get_terminal_size(terminal[1])
    print("fine")
