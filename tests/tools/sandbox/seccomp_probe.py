"""Make each of the calls given as JSON; print the errno (0: none) or the signal."""

import ctypes
import json
import mmap
import os
import sys

libc = ctypes.CDLL(None, use_errno=True)


def call(arguments):
    if arguments == "int 0x80":  # getpid by the rules of 32-bit programs
        page = mmap.mmap(-1, 4096, prot=7)
        page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    return libc.syscall(*(ctypes.c_long(each) for each in arguments))


answers = {}
for name, arguments in json.loads(sys.argv[1]).items():
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = ctypes.get_errno() if call(arguments) == -1 else 0
        os.write(writer, b"%d" % code)
        os._exit(0)
    os.close(writer)
    said = os.read(reader, 16)
    os.close(reader)
    status = os.waitpid(pid, 0)[1]
    answers[name] = int(said) if said else f"signal {os.WTERMSIG(status)}"
print(json.dumps(answers))
