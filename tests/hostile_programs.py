"""Programs written to pass without adding, to break out, or to break something. `f(a, b)` should be a + b."""

# "HOST" stands for a folder of the host that anybody may write to.
HOSTILE = {
    "exit at load": "import sys\ndef f(a, b): return 0\nsys.exit(0)",
    "os._exit at load": "import os\ndef f(a, b): return 0\nos._exit(0)",
    "os._exit in the call": "import os\ndef f(a, b): os._exit(0)",
    "SystemExit in the call": "def f(a, b): raise SystemExit(0)",
    "KeyboardInterrupt in the call": "def f(a, b): raise KeyboardInterrupt",
    "AssertionError in the call": "def f(a, b): raise AssertionError",
    "always equal object": """
        class Always:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __bool__(self): return True
            def __hash__(self): return 3
        def f(a, b): return Always()
    """,
    "always equal int": """
        class Always(int):
            def __eq__(self, other): return True
            __hash__ = int.__hash__
        def f(a, b): return Always(0)
    """,
    "object that answers everything": """
        class Anything:
            def __getattr__(self, name): return self
            def __call__(self, *arguments): return self
            def __eq__(self, other): return True
            def __iter__(self): return iter([3, 7])
            __class__ = int
        def f(a, b): return Anything()
    """,
    "entry point is data": "f = 3",
    "NotImplemented": "def f(a, b): return NotImplemented",
    "success printed": """
        import sys
        for stream in (sys.stdout, sys.stderr, sys.__stdout__):
            print("OK\\n1 passed\\n{'score': 1.0, 'passed': True}", file=stream, flush=True)
        def f(a, b): return print("correct")
    """,
    "forged frames on every descriptor": """
        import os, struct
        for text in (b"correct", b"V", b"VN", b"ready", b"V" + b"l" + struct.pack("<I", 2) + b"NN"):
            for descriptor in range(64):
                try: os.write(descriptor, struct.pack(">I", len(text)) + text)
                except OSError: pass
        def f(a, b): return 0
    """,
    "forged frames from a thread": """
        import os, struct, threading
        def flood():
            while True: os.write(3, struct.pack(">I", 7) + b"correct")
        threading.Thread(target=flood, daemon=True).start()
        def f(a, b): return 0
    """,
    "endless frame": """
        import os
        def f(a, b): return 0
        os.write(3, b"\\xff" * 4)
        while True: os.write(3, b"x" * 65536)
    """,
    "builtins patched": """
        import builtins
        builtins.all = builtins.any = builtins.isinstance = lambda *a: True
        builtins.len = builtins.sum = builtins.type = builtins.getattr = lambda *a: 3
        def f(a, b): return 0
    """,
    "our functions patched": """
        import gc
        def forged(*arguments, **keywords): return b"i\\x01\\x00\\x00\\x00\\x03"
        for thing in gc.get_objects():
            if getattr(thing, "__name__", "") in ("encode", "_run_cases", "send_frame") and hasattr(thing, "__code__"):
                try: thing.__code__ = forged.__code__
                except Exception: pass
        def f(a, b): return 0
    """,
    "atexit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(a, b): raise SystemExit",
    "frames walked": """
        import sys
        def f(a, b):
            frame = sys._getframe()
            while frame:
                for name, value in {**frame.f_globals, **frame.f_locals}.items():
                    if name == "expected" and value: return value
                frame = frame.f_back
    """,
    "heap walked": """
        import gc
        def f(a, b):
            for thing in gc.get_objects():
                if isinstance(thing, (tuple, list)) and len(thing) == 2 and thing[0] == (a, b): return thing[1]
                if isinstance(thing, str) and "assert f" in thing: return int(thing.split("==")[1])
    """,
    "traced": """
        import sys
        def trace(frame, event, value):
            frame.f_locals["result"] = 3
            return trace
        sys.settrace(trace); sys.setprofile(trace)
        def f(a, b): return 0
    """,
    "modules poisoned": """
        import sys
        for name in list(sys.modules):
            if name not in ("sys", "builtins"): sys.modules[name] = sys
        def f(a, b): return 0
    """,
    "parent killed": """
        import os, signal
        for process in (os.getppid(), 1, 0, -1, *range(2, 300)):
            try: os.kill(process, signal.SIGKILL)
            except OSError: pass
        def f(a, b): return 0
    """,
    "proc read": """
        import os
        for process in (*map(str, range(300)), "self"):
            for name in ("mem", "environ", "cmdline", "maps", "fd"):
                try: open(f"/proc/{process}/{name}").read()
                except (OSError, ValueError): pass
        def f(a, b): return len(os.listdir("/proc"))
    """,
    "descriptors closed": "import os\nos.closerange(0, 256)\ndef f(a, b): return 0",
    "descriptors swapped": "import os\nfor i in range(3): os.dup2(3, i)\nprint('correct')\ndef f(a, b): return 0",
    "fork bomb": "import os\ndef f(a, b):\n    while True: os.fork()",
    "thread bomb": """
        import threading
        def f(a, b):
            while True: threading.Thread(target=f, args=(a, b)).start()
    """,
    "daemon": """
        import os, time
        if not os.fork():
            os.setsid()
            if not os.fork(): time.sleep(600)
        def f(a, b): return 0
    """,
    "memory bomb": "def f(a, b):\n    x = [0]\n    while True: x = x + x",
    "one large allocation": "def f(a, b): return bytearray(1 << 34)",
    "memory in files": """
        import os
        def f(a, b): return 0
        files = []
        while True:
            files.append(os.memfd_create("x"))
            os.write(files[-1], bytes(1 << 24))
    """,
    "disk filled": """
        def f(a, b):
            for number in range(100000):
                with open(f"file{number}", "wb") as file:
                    while True: file.write(bytes(1 << 20))
    """,
    "output flood": "def f(a, b):\n    while True: print('x' * 65536)",
    "large result": "def f(a, b): return 'x' * (1 << 28)",
    "large number": "def f(a, b): return 1 << (1 << 31)",
    "deep result": "def f(a, b):\n    x = []\n    for _ in range(100000): x = [x]\n    return x",
    "cyclic result": "def f(a, b):\n    x = []\n    x.append(x)\n    return x",
    "shared result": "def f(a, b):\n    x = []\n    for _ in range(90): x = [x, x]\n    return x",
    "endless iterator": "def f(a, b):\n    while True: yield 3",
    "colliding keys": "def f(a, b): return {i * (2**61 - 1): 0 for i in range(1 << 17)}",
    "endless loop": "def f(a, b):\n    while True: pass",
    "loop that ignores signals": """
        import signal
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        def f(a, b):
            while True:
                try:
                    while True: pass
                except BaseException: pass
    """,
    "sleep": "import time\ndef f(a, b): time.sleep(600)",
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(a, b): return f(a, b)",
    "stack": """
        import sys
        sys.setrecursionlimit(10**9)
        class Adding:
            __add__ = lambda self, other: self + other
        def f(a, b): return Adding() + Adding()
    """,
    "null pointer": "import ctypes\ndef f(a, b): return ctypes.string_at(0)",
    "ptrace by hand": "import ctypes\ndef f(a, b): return ctypes.CDLL(None).ptrace(16, 1, 0, 0)",
    "limits raised": """
        import resource
        for kind in range(16):
            try: resource.setrlimit(kind, (-1, -1))
            except (OSError, ValueError): pass
        def f(a, b):
            while True: pass
    """,
    "shell": "import subprocess\ndef f(a, b): return int(subprocess.check_output(['sh', '-c', 'echo 3']))",
    "exec": "import os, sys\ndef f(a, b): os.execv(sys.executable, ['python'])",
    "network": "import socket\ndef f(a, b): return socket.create_connection(('127.0.0.1', 80))",
    "host file written": "import sys\ndef f(a, b):\n    open('HOST/mark', 'w').write('x')\n    return 3",
    "site-packages poisoned": """
        import os, sys
        for folder in (*sys.path, "/usr/lib/python3/dist-packages"):
            try: open(os.path.join(folder, "sitecustomize.py"), "w").write("import os; os._exit(0)")
            except OSError: pass
        def f(a, b): return 0
    """,
    "nested source": "def f(a, b): return " + "(" * 5000 + ")" * 5000,
    "unary source": "def f(a, b): return " + "-" * 50000 + "1",
    "chained source": "def f(a, b): return " + "+".join(["1"] * 20000),
}

# These run until a limit ends them.
SLOW = (
    "builtins patched", "colliding keys", "endless loop", "limits raised", "loop that ignores signals", "memory bomb",
    "output flood", "recursion", "shared result", "sleep",
)  # fmt: skip
