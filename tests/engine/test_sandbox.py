"""Programs that mean harm end in a plain verdict and leave nothing behind."""

import os
import shutil
import time
from pathlib import Path

import pytest

from graphflow.engine.sandbox import Job, Sandbox, SandboxConfig, SandboxError, Status, bubblewrap_problem
from graphflow.engine.seccomp import build_filter

PROBLEM = bubblewrap_problem(shutil.which("bwrap") or "")
isolated = pytest.mark.skipif(bool(PROBLEM), reason=f"programs cannot be isolated here: {PROBLEM}")
LIMITS = {"cpu_s": 1.0, "wall_s": 2.0, "memory_mb": 256, "output_kb": 4}


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(SandboxConfig(**LIMITS))


@isolated
def test_value_output_and_error(sandbox):
    assert sandbox.isolated
    verdict = sandbox.run("print('hello')\ndef f(x):\n    return x + 1", "f(41)")
    assert (verdict.status, verdict.value, verdict.output) == (Status.OK, "42", "hello\n")
    verdict = sandbox.run("y = x")
    assert (verdict.status, verdict.value) == (Status.ERROR, "NameError: name 'x' is not defined")
    assert sandbox.run("x = 1").value == "None"
    assert sandbox.run("x = 1", "assert x == 1\nx += 1\n(x,\n 'é')").value == "(2, 'é')"
    assert sandbox.run("x = 1", "assert x == 2, 'no'").value == "AssertionError: no"
    assert sandbox.run("import sys; sys.exit(0)", "1").value == "SystemExit: 0"
    assert sandbox.run("def f(:").value.startswith("SyntaxError")


@isolated
def test_verdicts_keep_their_order_and_bad_neighbours_cost_nothing(sandbox):
    bad = ["import os; os._exit(0)", "1 / 0", "import os; os.close(3)", "[0] * 10**9"]
    jobs = [Job(bad[i // 2 % 4] if i % 2 else f"x = {i}", "x") for i in range(40)]
    verdicts = sandbox.run_many(jobs)
    assert [verdict.value for verdict in verdicts[::2]] == [str(i) for i in range(0, 40, 2)]
    wanted = [Status.KILLED, Status.ERROR, Status.KILLED, Status.MEMORY] * 5
    assert [verdict.status for verdict in verdicts[1::2]] == wanted
    assert sandbox.run_many([]) == []


HOSTILE = {
    "endless loop": ("while True: pass", Status.TIMEOUT, ""),  # by CPU time, or by the wall clock on a busy machine
    "endless sleep": ("import time\ntime.sleep(1000)", Status.TIMEOUT, "wall clock"),
    "endless output": ("while True: print('x' * 1000)", Status.TIMEOUT, ""),
    "memory bomb": ("x = []\nwhile True: x.append(bytearray(1 << 20))", Status.MEMORY, "MemoryError"),
    "fork bomb": ("import os\nwhile True: os.fork()", Status.ERROR, "PermissionError"),
    "subprocess": ("import subprocess\nsubprocess.run(['true'])", Status.ERROR, "PermissionError"),
    "exit before the tests": ("import os\nos._exit(0)", Status.KILLED, "it exited with code 0"),
    "socket": ("import socket\nsocket.socket()", Status.ERROR, "PermissionError"),
    "write to the root": ("open('/x', 'w')", Status.ERROR, "OSError: [Errno 30]"),
    "write to the system": ("open('/usr/x', 'w')", Status.ERROR, "OSError: [Errno 30]"),
    "big file": ("open('x', 'wb').write(bytes(20 << 20))", Status.ERROR, "OSError: [Errno 27]"),
    "kill the parent": ("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)", Status.ERROR, "PermissionError"),
    "kill everything": ("import os, signal\nos.kill(-1, signal.SIGKILL)", Status.ERROR, "PermissionError"),
    "deep recursion": ("f = lambda n: f(n + 1)\nf(0)", Status.ERROR, "RecursionError"),
    "close all descriptors": ("import os\nos.closerange(0, 64)", Status.KILLED, "it "),
    "hostile error text": (
        "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E", Status.ERROR, "E"
    ),
}  # fmt: skip


@isolated
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_program(sandbox, name):
    program, status, value = HOSTILE[name]
    started = time.monotonic()
    verdict = sandbox.run(program, "print('passed')")
    assert verdict.status is status, verdict
    assert verdict.value.startswith(value)
    assert "passed" not in verdict.output
    assert len(verdict.output) <= 4096
    assert time.monotonic() - started < 20


@isolated
def test_recursion_below_the_interpreter_ends_in_a_verdict(sandbox):
    program = "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __repr__(self): return repr(self)"
    verdict = sandbox.run(program, "A()")
    assert verdict.status in (Status.KILLED, Status.MEMORY, Status.TIMEOUT, Status.ERROR)


@isolated
def test_fake_verdicts_on_every_descriptor_do_not_pass(sandbox):
    messages = (b"R", b"O", bytes(16) + b"O\0\0\0\1" + b"1", b'{"id": 0, "status": "ok", "value": "1"}\n')
    program = f"""
import os
for message in {messages!r}:
    for descriptor in range(64):
        try:
            os.write(descriptor, message)
        except OSError:
            pass
os._exit(0)
"""
    verdicts = sandbox.run_many([Job(program, "1"), Job("x = 5", "x"), Job(program, "1")])
    assert [verdict.status for verdict in verdicts] == [Status.KILLED, Status.OK, Status.KILLED]
    assert verdicts[1].value == "5"


@isolated
def test_no_frame_of_the_supervisor_and_no_call_is_in_reach(sandbox):
    program = """
import sys, gc
frame, names = sys._getframe(), set()
while frame:
    names |= set(frame.f_locals)
    frame = frame.f_back
texts = [o for d in gc.get_objects() if isinstance(d, dict) for o in list(d.values()) if isinstance(o, str)]
found = ("token" in names, "children" in names, any("hidden" + "_marker" in text for text in texts))
"""
    assert sandbox.run(program, "hidden_marker = 0\nfound").value == "(False, False, False)"


@isolated
def test_replaced_builtins_do_not_reach_the_verdict(sandbox):
    program = """
import builtins, os, sys, struct
for name in ("repr", "eval", "exec", "compile", "len", "str", "type", "isinstance", "BaseException"):
    setattr(builtins, name, lambda *a, **k: "forged")
os.write = os.read = os._exit = struct.pack = lambda *a: 0
sys.stdout = None
def f():
    return 3
"""
    assert sandbox.run(program, "f()").value == "3"
    assert sandbox.run(program, "assert f() == 4").status is Status.ERROR


@isolated
def test_environment_and_files_are_out_of_reach(sandbox, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    secret = tmp_path / "secret.txt"
    secret.write_text("hunter2")
    verdict = sandbox.run("import os", "sorted(set(os.environ) - {'LC_CTYPE', 'PWD'})")
    assert verdict.value == "['PYTHONHASHSEED']"
    here = Path(__file__).resolve()
    for path in (secret, here, Path.home() / ".bashrc", Path("/etc/passwd"), Path("/proc/1/environ")):
        assert sandbox.run("import os", f"os.path.exists({str(path)!r})").value == "False", path
    assert sandbox.run("import os", "os.listdir('.')").value == "[]"


@isolated
def test_runs_are_repeatable(sandbox):
    program = "import random\nx = (list({'a', 'b', 'c', 'd', 'e'}), random.random(), hash('text'))"
    assert sandbox.run(program, "x").value == sandbox.run(program, "x").value


@isolated
def test_value_and_output_are_cut_at_the_limit(sandbox):
    verdict = sandbox.run("print('x' * 10**6)", "'y' * 10**6")
    assert verdict.ok
    assert len(verdict.output) == len(verdict.value) == 4096


@isolated
def test_without_the_filter_a_killer_costs_its_own_batch_only():
    sandbox = Sandbox(SandboxConfig(**LIMITS, syscall_filter=False))
    killer = "import os, signal, time\ntime.sleep(.05)\nos.kill(-1, signal.SIGKILL)\nos.kill(1, signal.SIGKILL)"
    slow = "import time\ntime.sleep(.3)\nx = 7"
    verdicts = sandbox.run_many([Job(slow, "x"), Job(killer, "1"), Job(slow, "x"), Job(killer, "1")])
    assert [verdicts[0].value, verdicts[2].value] == ["7", "7"]
    jobs = [Job("import os\nfor _ in range(4): os.fork()", "1"), Job("x = 7", "x")]
    assert sandbox.run_many(jobs)[1].value == "7"
    assert sandbox.run("import socket\nsocket.create_connection(('1.1.1.1', 53), 1)").status is Status.ERROR


@isolated
def test_nothing_is_left_behind(sandbox):
    before = set(os.listdir("/tmp"))
    sandbox.run_many([Job("open('left', 'w').write('x')\nimport threading, time\n"
                          "threading.Thread(target=time.sleep, args=(100,)).start()", "1")] * 3)  # fmt: skip
    assert {name for name in set(os.listdir("/tmp")) - before if name.startswith("graphflow-")} == set()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_without_bubblewrap_the_error_names_both_ways_out(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SandboxError, match="install bubblewrap.*sandbox.allow_unisolated=true"):
        Sandbox(SandboxConfig())


def test_without_isolation_limits_still_hold(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    sandbox = Sandbox(SandboxConfig(**LIMITS, allow_unisolated=True))
    assert not sandbox.isolated
    verdicts = sandbox.run_many([Job("x = 2", "x"), Job("while True: pass"), Job("import os\nos._exit(0)", "1")])
    assert [verdict.status for verdict in verdicts] == [Status.OK, Status.TIMEOUT, Status.KILLED]
    assert sandbox.run("import os", "set(os.environ) - {'LC_CTYPE'}").value == "{'PYTHONHASHSEED'}"


@pytest.mark.parametrize(("field", "value"), [("cpu_s", 0), ("memory_mb", 1), ("processes", 0), ("output_kb", 0)])
def test_limits_outside_their_range_are_named(field, value):
    with pytest.raises(ValueError, match=rf"sandbox\.{field} must lie in \[.*\], got {value}"):
        SandboxConfig(**{field: value})


def test_filter_is_known_for_two_machines_only():
    for machine in ("x86_64", "aarch64"):
        code = build_filter(1, "Linux", machine)
        assert len(code) % 8 == 0
        assert len(build_filter(2, "Linux", machine)) < len(code)
    assert build_filter(1, "Linux", "riscv64") == b""
    assert build_filter(1, "Darwin", "x86_64") == b""
