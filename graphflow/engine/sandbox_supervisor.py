"""The process inside the sandbox: forks one child a program and reports the verdicts (see `graphflow.engine.sandbox`).

It is run as a script by path, never imported by the package, and uses the standard library only. Standard input holds
a line of settings and then one line a job; standard output gets one line a verdict, each behind the batch's token.

A child never holds the token, the channel of another child, or its own ``call`` before its program has ended:
`Supervisor.run` returns in the child, so that no frame of the supervisor is left above the program's. They talk over a
socket pair: child ``R`` (the program ended), parent nonce, length, call, child nonce, status letter, length, value.
"""

from __future__ import annotations

import ast  # noqa: F401  (imported here, like the further ones without use, so that no program has to pay for it)
import bisect  # noqa: F401
import builtins
import cmath  # noqa: F401
import collections  # noqa: F401
import copy  # noqa: F401
import ctypes
import functools  # noqa: F401
import gc
import heapq  # noqa: F401
import itertools  # noqa: F401
import json
import math  # noqa: F401
import operator  # noqa: F401
import os
import random
import re  # noqa: F401
import resource
import selectors
import shutil
import signal
import socket
import string  # noqa: F401
import struct
import sys
import time
import types
import typing  # noqa: F401

# The functions below keep this copy, whatever a program does to the real one.
__builtins__ = dict(vars(builtins))

NONCE = 16
SPARE = 64 << 20  # address space kept back to report a MemoryError with
STATUS = {b"O": "ok", b"E": "error", b"M": "memory"}
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 4, 22, 38
FORGED = ("killed", "it wrote to the supervisor's channel")


class Child:
    """One running program, as the supervisor sees it."""

    def __init__(self, job, folder, pid, channel, output, settings):
        self.id, self.call, self.folder, self.pid = job["id"], job["call"], folder, pid
        self.channel, self.output, self.limit = channel, output, settings["output"]
        self.nonce = os.urandom(NONCE)
        self.heard, self.printed, self.to_send = bytearray(), bytearray(), b""
        self.ready = self.closed = False
        self.started = time.monotonic()
        self.deadline = self.started + settings["wall_s"]

    def listen(self):
        """Reads the channel; returns (status, value) once a verdict is there, else None."""
        try:
            data = self.channel.recv(65536)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        self.closed = not data
        self.heard += data
        if self.closed:
            return None
        if self.ready:
            return self.read_verdict()
        if self.heard != b"R":
            return FORGED
        call = self.call.encode("utf-8", "surrogatepass")
        self.ready, self.heard = True, bytearray()
        self.to_send = self.nonce + struct.pack("!I", len(call)) + call
        return None

    def read_verdict(self):
        """The verdict in what was heard: None while it is incomplete."""
        head = NONCE + 5
        if len(self.heard) < head:
            return None
        nonce, letter = bytes(self.heard[:NONCE]), bytes(self.heard[NONCE : NONCE + 1])
        (length,) = struct.unpack("!I", self.heard[NONCE + 1 : head])
        if nonce != self.nonce or letter not in STATUS or length > 4 * self.limit + 1024:
            return FORGED
        if len(self.heard) < head + length:
            return None
        return STATUS[letter], self.heard[head : head + length].decode("utf-8", "replace")

    def send(self):
        """Sends as much of the call as the channel takes."""
        try:
            self.to_send = self.to_send[self.channel.send(self.to_send) :]
        except BlockingIOError:
            pass
        except OSError:
            self.to_send = b""

    def collect(self):
        """Reads what was printed, keeps no more than the limit; None if nothing is there now, False at its end."""
        try:
            data = os.read(self.output, 65536)
        except BlockingIOError:
            return None
        self.printed += data[: max(0, self.limit - len(self.printed))]
        return bool(data)

    def end(self, cpu_s):
        """Kills and reaps the child; returns how it had ended by itself, as (status, value, suspect)."""
        for kill in (os.killpg, os.kill):
            try:
                kill(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        _, status, usage = os.wait4(self.pid, 0)
        while len(self.printed) < self.limit and self.collect():
            pass
        self.channel.close()
        os.close(self.output)
        shutil.rmtree(self.folder, ignore_errors=True)
        if os.WIFEXITED(status):
            return "killed", f"it exited with code {os.WEXITSTATUS(status)} before its end", False
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU or (number == signal.SIGKILL and usage.ru_utime + usage.ru_stime >= cpu_s):
            return "timeout", "CPU time", False
        if number == signal.SIGKILL:  # sent by a neighbour, or just now because its channel closed
            return "killed", "it was killed, or closed the supervisor's channel", True
        return "killed", f"signal {number}", False


class Supervisor:
    """Keeps a few children running until all jobs of the batch are done."""

    def __init__(self):
        self.source = open(0, "rb", closefd=False)
        self.settings = json.loads(self.source.readline())
        self.token = bytearray(self.settings.pop("token").encode())
        self.libc = ctypes.CDLL(None)
        if sys.platform == "linux":
            self.libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # closes its memory to its children
        self.selector = selectors.DefaultSelector()
        self.children, self.more = set(), True
        self.report({"started": True})

    def run(self):
        """Runs all jobs. Returns only in a forked child, with the arguments of `run_program`."""
        gc.freeze()
        while True:
            while self.more and len(self.children) < self.settings["workers"]:
                program = self.start()
                if program:
                    return program
            if not self.children:
                return None
            self.wait()

    def start(self):
        """Forks a child for the next job; returns None in the supervisor."""
        line = self.source.readline()
        if not line.strip():
            self.more = False
            return None
        job = json.loads(line)
        mine, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        folder = os.path.join(os.getcwd(), os.urandom(8).hex())
        os.mkdir(folder, 0o700)
        pid = os.fork()
        if pid == 0:
            self.token[:] = bytes(len(self.token))
            take_descriptors(theirs.detach(), write_end)
            return job["program"], folder, self.settings, self.libc
        theirs.close()
        os.close(write_end)
        mine.setblocking(False)
        os.set_blocking(read_end, False)
        child = Child(job, folder, pid, mine, read_end, self.settings)
        self.children.add(child)
        self.selector.register(mine, selectors.EVENT_READ, child)
        self.selector.register(read_end, selectors.EVENT_READ, child)
        return None

    def wait(self):
        """Waits for something to happen, and finishes the children that are done."""
        patience = min(child.deadline for child in self.children) - time.monotonic()
        done = {}
        for key, mask in self.selector.select(max(patience, 0.0)):
            child = key.data
            if child in done:
                continue
            if key.fileobj is not child.channel:
                if child.collect() is False:
                    self.selector.unregister(key.fileobj)
                continue
            if mask & selectors.EVENT_WRITE:
                child.send()
            verdict = child.listen() if mask & selectors.EVENT_READ else None
            if verdict or child.closed:
                done[child] = verdict
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if child.to_send else 0)
            self.selector.modify(child.channel, events, child)
        now = time.monotonic()
        late = [child for child in self.children if child not in done and now >= child.deadline]
        for child, verdict in [*done.items(), *((child, ("timeout", "wall clock")) for child in late)]:
            self.finish(child, verdict)

    def finish(self, child, verdict):
        """Ends a child and reports it."""
        self.children.remove(child)
        for channel in (child.channel, child.output):
            if channel in self.selector.get_map():
                self.selector.unregister(channel)
        seconds = time.monotonic() - child.started
        ended = child.end(self.settings["cpu_s"])
        status, value, suspect = (*verdict, False) if verdict else ended
        printed = bytes(child.printed).decode("utf-8", "replace")
        row = {"id": child.id, "status": status, "value": value[: child.limit], "output": printed}
        self.report({**row, "seconds": seconds, "suspect": suspect})

    def report(self, row):
        """Writes a line to the caller."""
        data = bytes(self.token) + b" " + json.dumps(row).encode() + b"\n"
        while data:
            data = data[os.write(1, data) :]


def take_descriptors(channel, output):
    """Leaves a child with descriptor 0 and 2 = nothing, 1 = its output, 3 = the channel."""
    channel, output = os.dup2(channel, 200), os.dup2(output, 201)
    nothing = os.open(os.devnull, os.O_RDWR)
    for source, target in ((nothing, 0), (output, 1), (nothing, 2), (channel, 3)):
        os.dup2(source, target)
    os.closerange(4, 4096)


def restrict(settings, libc):
    """Sets the limits and the filter of the calling child."""
    memory, seconds = settings["memory"], settings["cpu_s"]
    limits = {
        resource.RLIMIT_CPU: (seconds, seconds + 1),
        resource.RLIMIT_AS: (memory, memory + SPARE),
        resource.RLIMIT_FSIZE: (settings["file"], settings["file"]),
        resource.RLIMIT_NOFILE: (64, 64),
        resource.RLIMIT_CORE: (0, 0),
    }
    if settings["isolated"]:  # elsewhere it would count the user's other processes too
        count = settings["workers"] * max(settings["processes"], 16) + 2
        limits[resource.RLIMIT_NPROC] = (count, count)
    for name, pair in limits.items():
        resource.setrlimit(name, pair)
    code = bytes.fromhex(settings["filter"])
    if code:
        buffer = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.prctl(PR_SET_SECCOMP, 2, ctypes.c_char_p(program), 0, 0):
            os._exit(125)


def describe(error):
    """``NameError: ...`` for an exception, which the program may have defined itself."""
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:
        text = ""
    return f"{name}: {text}" if text else name


def evaluate(call, namespace):
    """``repr`` of the last expression of the call; "None" if the call ends in another statement."""
    tree: typing.Any = compile(call, "<call>", "exec", 0x400)  # PyCF_ONLY_AST
    last = tree.body.pop() if tree.body else None
    if not isinstance(last, ast.Expr):
        exec(compile(call, "<call>", "exec", 0, True), namespace)
        return "None"
    exec(compile(tree, "<call>", "exec", 0, True), namespace)
    return repr(eval(compile(ast.Expression(last.value), "<call>", "eval", 0, True), namespace))


def run_program(source, folder, settings, libc, channel=3):
    """The child: runs the program, then asks for the call, evaluates it, reports and ends."""
    # The program may replace any attribute of these modules, so what is used after it is kept here.
    write, read, leave, flush, fit = os.write, os.read, os._exit, sys.stdout.flush, resource.setrlimit
    pack, unpack, space = struct.pack, struct.unpack, resource.RLIMIT_AS
    limit, enough = settings["output"], settings["memory"] + SPARE
    os.setpgid(0, 0)
    os.chdir(folder)
    random.seed(0)
    module = types.ModuleType("program")
    sys.modules["program"] = sys.modules["__main__"] = module
    namespace = module.__dict__
    namespace["__builtins__"] = builtins
    restrict(settings, libc)

    def attempt(action, *arguments):
        try:
            return b"O", action(*arguments)
        except MemoryError:
            fit(space, (enough, enough))
            return b"M", "MemoryError"
        except BaseException as error:
            return b"E", describe(error)

    def take(count):
        data = b""
        while len(data) < count:
            part = read(channel, count - len(data))
            if not part:
                leave(1)
            data += part
        return data

    letter, value = attempt(lambda: exec(compile(source, "<program>", "exec", 0, True), namespace))
    write(channel, b"R")
    head = take(NONCE + 4)
    call = take(unpack("!I", head[NONCE:])[0]).decode("utf-8", "surrogatepass")
    if letter == b"O":
        letter, value = attempt(evaluate, call, namespace)
    attempt(flush)
    data = str(value)[:limit].encode("utf-8", "backslashreplace")
    data = head[:NONCE] + letter + pack("!I", len(data)) + data
    while data:
        data = data[write(channel, data) :]
    leave(0)


def main():
    """Runs the batch, or, in a forked child, one program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    arguments = Supervisor().run()
    if arguments:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        run_program(*arguments)


if __name__ == "__main__":
    main()
