"""The process that compares expressions with sympy, started by `graphflow.benchmarks.math_judge`.

It imports sympy once and forks a child for every comparison, which is killed when its time is up: sympy can run for
hours or fill the memory on a short text, and no limit inside the process would hold. The limit that decides is CPU
time, so that a verdict does not depend on what else the machine does; a wall clock stands behind it. A child also
starts from a clean state, whatever the one before it did. Request and reply are one JSON line each; the first line sent
says "ready".

AFlow's comparison hands the text to sympy's parser, which evaluates it as Python. A text that ran could make itself
equal in any number of ways (write to the pipe that the verdict travels through, replace a function, be an object whose
difference to everything is 0), and nothing in the same process can be hidden from it; so no text runs that is more than
an expression of numbers, symbols and mathematical functions (`is_expression`). math-verify evaluates digits alone.

It imports nothing of the package, since it runs where only sympy and math-verify can be read.
"""

import builtins
import ctypes
import functools
import gc
import io
import json
import keyword
import logging
import os
import resource
import select
import signal
import struct
import sys
import time
import tokenize
from math import isclose

MEMORY = 2 << 30
START_CPU_S, START_WALL_S = 30, 120.0
CLOCK_S = 0.5  # what the kernel's count of CPU time may lack at a limit
KNOWN = (  # compared at the start, so that what sympy loads lazily is there before any child is forked
    ("strict", r"\frac{1}{2}", "0.5"),
    ("strict", "(x+2)(x+3)", "x^2+5x+6"),
    ("strict", "(1,x]", "(1,x]"),
    ("strict", r"\sin(x)^2", r"1-\cos(x)^2"),
    ("strict", r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("aflow", "(x+1)**2", "x**2+2*x+1"),
)
OPERATORS = frozenset("+ - * / // % ** ( ) [ ] , ! == != < > <= >= ^ | & ~".split())
WORDS = frozenset(("True", "False", "None", "and", "or", "not", "in", "is", "if", "else"))
FUNCTIONS = frozenset(("abs", "max", "min", "pow", "round", "sum", "sqrt", "cbrt", "root", "real_root", "gcd", "lcm"))
CLASSES = frozenset(("Integer", "Rational", "Float", "Add", "Mul", "Pow", "Sum", "Product", "Integral", "Derivative"))
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38


def strict_equal(given, wanted):
    """Whether `math_verify` finds two LaTeX texts equal."""
    from math_verify import parse, verify

    # Timeouts inside are signals and do not hold in native code; the process is the limit.
    left, right = (parse(f"${text}$", parsing_timeout=0) for text in (wanted, given))
    return bool(verify(left, right, timeout_seconds=0))


def aflow_equal(given, wanted):
    """Whether AFlow's scorer finds two texts symbolically equal (geekan/MetaGPT at 27e942c, benchmark/math.py).

    It evaluates the text as Python and takes every failure, an exit of the evaluated text included, as no.
    """
    from sympy import N, simplify

    left, right = aflow_expression(given), aflow_expression(wanted)
    if not all(is_expression(side) for side in (left, right) if isinstance(side, str)):
        return False  # AFlow's scorer evaluates it once more, in N
    try:
        if simplify(left - right) == 0:  # pyright: ignore
            return True
    except BaseException:
        pass
    try:
        return isclose(N(left), N(right), abs_tol=1e-3)
    except BaseException:
        return False


def aflow_expression(text):
    """The text as LaTeX (only where the antlr runtime is version 4.11), else as Python, else as it is."""
    from sympy.parsing.latex import parse_latex
    from sympy.parsing.sympy_parser import parse_expr

    for parse in (parse_latex, parse_expr)[: 2 if is_expression(text) else 1]:
        try:
            return parse(text)
        except BaseException:
            pass
    return text


def is_expression(text):
    """Whether sympy's parser may evaluate a text: numbers, symbols, operators and mathematical functions alone.

    No attribute, string, lambda, comprehension or assignment, and no name of Python or sympy but functions and
    constants of mathematics (``pi``, ``sin``, ``max``): such a text can reach nothing, nor make a text that sympy would
    evaluate. A name that means nothing is a symbol. The text is read as the parser does, which may join its lines.
    """
    try:
        return all(
            allowed_token(token)
            for form in (text, text.replace("\n", ""))
            for token in tokenize.generate_tokens(io.StringIO(form.strip()).readline)
        )
    except (tokenize.TokenError, SyntaxError):  # of a text that is no Python: the parser does not get past it either
        return False


def allowed_token(token):
    """Whether a token may stand in an expression; see `is_expression`."""
    match token.type:
        case tokenize.NUMBER | tokenize.NEWLINE | tokenize.NL | tokenize.ENDMARKER:
            return True
        case tokenize.NAME:
            return token.string in WORDS if keyword.iskeyword(token.string) else token.string not in forbidden_names()
        case tokenize.OP | tokenize.ERRORTOKEN:  # until Python 3.12 "!" is an error, and so is a stray blank
            return token.string in OPERATORS or token.string == " "
    return False


@functools.cache
def forbidden_names():
    """Names that mean something to sympy's parser and are not functions or constants of mathematics."""
    import sympy

    known = dict(vars(builtins))
    exec("from sympy import *", known)
    constants = {name for name, value in known.items() if isinstance(value, sympy.Basic)}
    functions = {name for name, value in known.items() if isinstance(value, type) and issubclass(value, sympy.Function)}
    return frozenset(known) - constants - (functions - {"Function"}) - FUNCTIONS - CLASSES


COMPARISONS = {"strict": strict_equal, "aflow": aflow_equal}


def restrict(seconds, code):
    """Sets limits, and the system-call filter, of the calling child."""
    for name, value in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(name, (value, value))
    if code:
        libc = ctypes.CDLL(None)
        buffer = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.prctl(PR_SET_SECCOMP, 2, ctypes.c_char_p(program), 0, 0):
            os._exit(1)


def compare(request, code):
    """The verdict of a forked child: "yes" or "no"; "limit" if it was stopped at one, "lost" if it ended otherwise."""
    deadline = time.monotonic() + request["wall_s"]
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        verdict = b"no"
        try:
            nothing = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nothing, descriptor)
            restrict(request["cpu_s"], code)
            if COMPARISONS[request["kind"]](request["given"], request["wanted"]):
                verdict = b"yes"
        except BaseException:  # whatever a comparison dies of, the answer is not shown to be right
            pass
        finally:
            os.write(writable, verdict)
            os._exit(0)
    os.close(writable)
    verdict = b""
    if select.select([readable], [], [], request["wall_s"])[0]:
        verdict = os.read(readable, 8)
    os.kill(child, signal.SIGKILL)
    usage = os.wait4(child, 0)[2]
    os.close(readable)
    stopped = time.monotonic() >= deadline or usage.ru_utime + usage.ru_stime >= request["cpu_s"] - CLOCK_S
    return verdict.decode() or ("limit" if stopped else "lost")


def main():
    """Serves requests until the input ends.

    Arguments: the system-call filter in hexadecimal (or "-"), then the folders to import from.
    """
    code = bytes.fromhex(sys.argv[1].strip("-"))
    sys.path[:0] = sys.argv[2:]
    logging.disable(logging.CRITICAL)
    import math_verify  # noqa: F401  pyright: ignore
    import sympy.parsing.latex  # noqa: F401  pyright: ignore

    for kind, given, wanted in KNOWN:
        COMPARISONS[kind](given, wanted)
    gc.freeze()
    kind, given, wanted = KNOWN[0]
    known = {"kind": kind, "given": given, "wanted": wanted, "cpu_s": START_CPU_S, "wall_s": START_WALL_S}
    if compare(known, code) != "yes":
        code = b""  # a system that refuses such filters
    if compare(known, code) != "yes":
        sys.exit("a known comparison failed")
    print(json.dumps({"reply": "ready"}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps({"id": request["id"], "reply": compare(request, code)}), flush=True)


if __name__ == "__main__":
    main()
