"""Programs against the running interpreter: threads, signals, frames, memory, and their own source.

`f(a, b)` should be a + b.
"""

RUNTIME = {
    "thread that outlives the call": """
        import os, threading, time
        def later():
            while True: time.sleep(0.01); os.write(3, b"\\0\\0\\0\\2VN")
        def f(a, b): threading.Thread(target=later, daemon=True).start(); return 0
    """,
    "threads at the end": """
        import atexit, threading, time
        def f(a, b):
            thread = threading.Thread(target=time.sleep, args=(600,)); thread.start()
            threading._register_atexit(thread.join)
            atexit.register(thread.join)
            raise SystemExit
    """,
    "fork in a signal's handler": """
        import os, signal
        signal.signal(signal.SIGALRM, lambda *a: os.fork())
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        def f(a, b):
            for _ in range(10**5): pass
            return 0
    """,
    "exceptions by timers": """
        import signal
        def end(*a): raise SystemExit(0)
        for kind, number in ((0, 14), (1, 26), (2, 27)):
            signal.signal(number, end); signal.setitimer(kind, 0.0005, 0.0005)
        def f(a, b): return 0
    """,
    "signals blocked": """
        import signal
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        def f(a, b): return signal.sigtimedwait(range(1, 65), 0.05)
    """,
    "exceptions thrown into us": """
        import ctypes, threading
        def throw():
            for _ in range(1000):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main), ctypes.py_object(SystemExit))
        main = threading.get_ident()
        threading.Thread(target=throw, daemon=True).start()
        def f(a, b): return 0
    """,
    "our frame rewritten": """
        import ctypes, sys
        def f(a, b):
            frame = sys._getframe(1)
            while frame:
                for name in frame.f_locals: frame.f_locals[name] = [b"i\\1\\0\\0\\0\\3", b"i\\1\\0\\0\\0\\7"]
                ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(1))
                frame = frame.f_back
            return 0
    """,
    "jump in our frame": """
        import sys
        def trace(frame, event, value):
            if event == "line":
                try: frame.f_lineno = frame.f_lineno + 1
                except ValueError: pass
            frame.f_trace_opcodes = True
            return trace
        def f(a, b):
            frame = sys._getframe(1)
            sys.settrace(trace)
            while frame: frame.f_trace = trace; frame = frame.f_back
            return 0
    """,
    "monitoring": """
        import sys
        tool = getattr(sys, "monitoring", None)
        if tool:
            tool.use_tool_id(2, "x"); tool.set_events(2, 0xFFFF)
            for event in range(16):
                try: tool.register_callback(2, 1 << event, lambda *a: tool.DISABLE)
                except ValueError: pass
        def f(a, b): return 0
    """,
    "closures and defaults rewritten": """
        import gc, types
        for thing in gc.get_objects():
            if isinstance(thing, types.FunctionType):
                try: thing.__defaults__ = tuple(3 for _ in thing.__defaults__ or ()) or None
                except Exception: pass
            if isinstance(thing, types.CellType):
                try: thing.cell_contents = 3
                except Exception: pass
        def f(a, b): return 0
    """,
    "referrers walked": """
        import gc, types
        def f(a, b):
            seen, todo = set(), [f]
            while todo and len(seen) < 20000:
                thing = todo.pop()
                if id(thing) in seen: continue
                seen.add(id(thing))
                if isinstance(thing, bytes) and b"assert f" in thing: return 3
                todo += gc.get_referrers(thing)[:50]
            return 0
    """,
    "memory searched": """
        import ctypes
        def f(a, b):
            start = id(f) & ~0xFFFFF
            for _ in range(64):
                try: data = ctypes.string_at(start, 1 << 16)
                except Exception: return 0
                at = data.find(b"assert f(" + b"1, 2)")
                if at >= 0: return int(data[at:].split(b"==")[1][:2])
                start += 1 << 16
            return 0
    """,
    "type slots overwritten": """
        import ctypes
        def f(a, b): return 0
        ctypes.memset(id(bytes) + 24, 0, 200)
    """,
    "immortal None": """
        import ctypes
        ctypes.c_ssize_t.from_address(id(None)).value = 1
        def f(a, b):
            for _ in range(100): (lambda: None)()
            return None
    """,
    "import of the tests": """
        def f(a, b):
            for name in ("tests", "setup", "_sandbox", "_sandbox.tester", "_sandbox.candidate", "smallwit"):
                try: return __import__(name) and a + b
                except ImportError: pass
            return 0
    """,
    "main module": """
        import __main__, os
        __main__.f = lambda a, b: 3
        os._exit = exit = print
        def f(a, b): return 0
    """,
    "our exit replaced": """
        import os, sys
        os._exit = lambda status: None
        sys.exit = os.abort = os._exit
        def f(a, b): raise KeyboardInterrupt
    """,
    "subinterpreter": """
        try: import _xxsubinterpreters as own
        except ImportError: import _interpreters as own
        def f(a, b):
            return own.run_string(own.create(), "import os; os.write(3, b'\\\\0\\\\0\\\\0\\\\2VN')") or 0
    """,
    "asyncio without an end": """
        import asyncio
        async def g(): await asyncio.gather(*[asyncio.sleep(600) for _ in range(10)])
        def f(a, b):
            try: asyncio.run(asyncio.wait_for(g(), 0.05))
            except TimeoutError: return 0
    """,
    "generators that will not close": """
        def g():
            while True:
                try: yield 3
                except GeneratorExit: pass
        def f(a, b):
            x = g(); next(x); x.close()
            return x
    """,
    "warnings to the socket": """
        import sys, warnings
        sys.stdout = sys.stderr = open(3, "w", closefd=False)
        def f(a, b): warnings.warn("V"); print("V"); sys.stderr.flush(); return 0
    """,
    "trace of allocations": """
        import tracemalloc
        tracemalloc.start(50)
        def f(a, b): return [str(line) for line in tracemalloc.take_snapshot().traces if "assert" in str(line)] or 0
    """,
    "dates out of range": "import datetime\ndef f(a, b): return datetime.datetime.max + datetime.timedelta(days=a)",
    "time that runs backward": """
        import time
        time.time = time.monotonic = time.perf_counter = time.process_time = lambda: -1e308
        def f(a, b): return 0
    """,
    "format bomb": "def f(a, b): return '%*d' % (1 << 31, 3) + f'{3:{1 << 31}}'",
    "decimals": """
        import decimal
        decimal.getcontext().prec = decimal.MAX_PREC
        def f(a, b): return decimal.Decimal(1) / 3
    """,
    "fractions": "import fractions\ndef f(a, b): return fractions.Fraction('1e1000000')",
    "normal forms": "import unicodedata\ndef f(a, b): return unicodedata.normalize('NFKD', '\\ufdfa' * (1 << 20))",
    "XML of a billion laughs": """
        import xml.etree.ElementTree as tree
        def f(a, b):
            names = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(9))
            return len(tree.fromstring(f'<!DOCTYPE x [<!ENTITY e0 "x">{names}]><x>&e9;</x>').text)
    """,
    "source of a null byte": "def f(a, b): return 3\0",
    "source of many brackets": "def f(a, b): return " + "[" * 190 + "0" + "]" * 190,
    "source of many lines": "def f(a, b):\n    return 0\n" + "if 1:\n    pass\n" * 5000,
    "source with an own encoding": "# coding: utf-7\ndef f(a, b): return 0 +AC0- 0\n",
    "comprehensions in comprehensions": "def f(a, b): return " + "[" * 60 + "0" + " for x in ()]" * 60,
    "decorator bomb": "@lambda g: g\n" * 300 + "def f(a, b): return 0\n",
    "annotations that run": "import os\ndef f(a: os._exit(0), b: 3) -> os._exit(0): return 0",
    "entry point that is a property of the module": """
        import sys, types
        f = None
        class Module(types.ModuleType):
            @property
            def f(self): return lambda a, b: 0
        sys.modules["candidate"].__class__ = Module
    """,
}  # fmt: skip
