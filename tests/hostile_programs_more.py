"""More programs written to pass without adding, by somebody who has read the judge. `f(a, b)` should be a + b."""

# "HOST" stands for a folder of the host that anybody may write to.
CUNNING = {
    "StopIteration in the call": "def f(a, b): raise StopIteration(3)",
    "GeneratorExit in the call": "def f(a, b): raise GeneratorExit",
    "exception with a lying class": """
        class Lie(BaseException):
            __name__ = "StopIteration"
            @property
            def __class__(self): return StopIteration
        Lie.__name__ = "AssertionError"
        def f(a, b): raise Lie
    """,
    "exception that cannot be named": """
        class Meta(type):
            def mro(cls): return [cls, *BaseException.__mro__]
            def __getattribute__(cls, name): raise SystemExit
        class Odd(BaseException, metaclass=Meta): pass
        def f(a, b): raise Odd
    """,
    "isclose and friends replaced": """
        import math, operator, builtins, numbers
        math.isclose = operator.eq = lambda *a, **k: True
        math.fabs = builtins.abs = builtins.round = lambda *a, **k: 0
        def f(a, b): return 0
    """,
    "AssertionError replaced": """
        import builtins
        class Quiet(BaseException):
            def __new__(cls, *a): return None
        builtins.AssertionError = builtins.Exception = builtins.BaseException = Quiet
        def f(a, b): return 0
    """,
    "import hooks": """
        import builtins, sys
        class Hook:
            def find_spec(self, *a, **k): raise SystemExit(0)
        sys.meta_path.insert(0, Hook()); sys.path_hooks.insert(0, Hook)
        builtins.__import__ = lambda *a, **k: sys
        def f(a, b): return 0
    """,
    "compile and exec replaced": """
        import builtins
        builtins.exec = builtins.compile = builtins.eval = lambda *a, **k: None
        def f(a, b): return 0
    """,
    "audit hook": """
        import sys
        def hook(event, values): raise SystemExit(0)
        sys.addaudithook(hook)
        def f(a, b): return 0
    """,
    "excepthooks": """
        import os, sys, threading
        sys.excepthook = sys.unraisablehook = threading.excepthook = lambda *a: os._exit(0)
        sys.displayhook = print
        def f(a, b): raise ValueError
    """,
    "gc callbacks and finalizers": """
        import gc, os
        class Last:
            def __del__(self): os._exit(0)
        gc.callbacks.append(lambda *a: None)
        keep = Last(); keep.me = keep; del keep
        def f(a, b): gc.collect(); return 0
    """,
    "socket functions replaced": """
        import socket, struct, time
        def forged(self, data, *a): return None
        for name in ("sendall", "send", "recv", "settimeout"):
            try: setattr(socket.socket, name, forged)
            except (AttributeError, TypeError): pass
        struct.Struct = struct.pack = time.monotonic = forged
        def f(a, b): return 0
    """,
    "codecs registered": """
        import codecs, encodings
        codecs.register(lambda name: codecs.lookup("rot13"))
        codecs.register_error("surrogatepass", lambda error: ("3", error.end))
        def f(a, b): return "\\ud800"
    """,
    "our modules called by hand": """
        import gc, sys, types
        def f(a, b):
            frame = sys._getframe(1)
            send = next(t for t in gc.get_objects() if isinstance(t, types.FunctionType) and t.__name__ == "send_frame")
            sock = next(t for t in gc.get_objects() if type(t).__name__ == "socket")
            for text in (b"V" + b"i\\x01\\x00\\x00\\x00\\x03", b"correct", b"VT", b"VR\\x00\\x00\\x00\\x00"):
                send(sock, text)
            return 0
    """,
    "socket used while we use it": """
        import socket, threading
        def f(a, b):
            mine = socket.socket(fileno=3)
            threading.Thread(target=lambda: [mine.recv(1) for _ in iter(int, 1)], daemon=True).start()
            return 0
    """,
    "socket shut down": "import socket\nsocket.socket(fileno=3).shutdown(2)\ndef f(a, b): return 0",
    "half a frame": "import os, time\ndef f(a, b):\n    os.write(3, b'\\0\\0')\n    time.sleep(600)",
    "frame that never comes": """
        import os, time
        def f(a, b):
            os.write(3, b"\\x00\\x00\\x00\\x10V")
            while True: time.sleep(0.1); os.write(3, b"")
    """,
    "frame bombs": """
        import os, struct
        def f(a, b):
            count = struct.pack("<I", 0xFFFFFFFF)
            for body in (b"l" + count, b"s" + count, b"L" + count * 6, b"d" + count, b"R" + count, b"k\\xff",
                         b"e\\1\\0\\0\\0l\\0\\0\\0\\0"):
                os.write(3, struct.pack(">I", len(body) + 1) + b"V" + body)
            return 0
    """,
    "nested frame": """
        import os, struct
        def f(a, b):
            body = b"V" + b"l\\1\\0\\0\\0" * 1000000 + b"N"
            data = struct.pack(">I", len(body)) + body
            while data: data = data[os.write(3, data):]
    """,
    "lists from little": """
        import os, struct
        def f(a, b):
            body = b"Vl" + struct.pack("<I", 12000000) + b"l\\0\\0\\0\\0" * 12000000
            data = struct.pack(">I", len(body)) + body
            while data: data = data[os.write(3, data):]
    """,
    "unknown outcome": "import os\ndef f(a, b): os.write(3, b'\\0\\0\\0\\1?')",
    "error with odd names": """
        import os, struct
        def f(a, b):
            for name in (b"exit", b"print", b"open", b"__import__", b"StopIteration", b"UnicodeDecodeError"):
                body = b"Et\\1\\0\\0\\0s" + struct.pack("<I", len(name)) + name
                os.write(3, struct.pack(">I", len(body)) + body)
            return 0
    """,
    "reduce": """
        import os
        class Pickled:
            def __reduce__(self): return os._exit, (0,)
            __reduce_ex__ = lambda self, protocol: (os._exit, (0,))
            __getstate__ = __copy__ = __deepcopy__ = lambda self, *a: self
        def f(a, b): return Pickled()
    """,
    "class that is instance of all": """
        class Meta(type):
            __instancecheck__ = __subclasscheck__ = lambda cls, other: True
            __eq__ = lambda cls, other: True
            __hash__ = type.__hash__
        class Everything(metaclass=Meta): pass
        def f(a, b): return Everything
    """,
    "containers that lie": """
        class List(list):
            __len__ = lambda self: 0
            __iter__ = lambda self: iter([3, 7])
            __eq__ = lambda self, other: True
            __reversed__ = __iter__
        class Dict(dict):
            items = lambda self: [(1, 1)]
            __eq__ = lambda self, other: True
        class Text(str):
            __eq__ = lambda self, other: True
            encode = lambda self, *a: b"3"
            __hash__ = str.__hash__
        def f(a, b): return (List([1]), Dict(a=1), Text("x"))
    """,
    "float that lies": """
        class Number(float):
            __eq__ = __lt__ = __le__ = __gt__ = __ge__ = lambda self, other: True
            __sub__ = __rsub__ = __abs__ = lambda self, *a: 0.0
            __hash__ = float.__hash__
        def f(a, b): return Number("nan")
    """,
    "small numbers rewritten": """
        import ctypes
        def f(a, b): return 0
        for number in (3, 7):
            ctypes.memmove(id(0) + 24, id(number) + 24, 4)
    """,
    "code of the host read": """
        import glob, os
        def f(a, b):
            found = []
            for pattern in ("/root/*", "/home/*", "/etc/passwd", "/etc/shadow", "/var/*", "/**/*.jsonl*", "/mnt/*",
                            "/sys/*", "/proc/*", "HOST/*"):
                found += glob.glob(pattern)
            return found
    """,
    "environment": "import os\ndef f(a, b): return dict(os.environ) or os.environb or os.getenv('PATH')",
    "links out": """
        import os
        for source, name in (("/", "root"), ("/proc/self/root", "r"), ("/dev", "d"), ("HOST", "h")):
            try: os.symlink(source, name)
            except OSError: pass
            try: os.link(source, name + "l")
            except OSError: pass
        for call in (lambda: open("h/mark", "w"), lambda: os.chroot("."), lambda: os.mknod("n", 0o60666, 0x800),
                     lambda: os.chdir(".."), lambda: os.chmod("/tmp", 0o777), lambda: os.rename("/lib", "/lib2")):
            try: call()
            except OSError: pass
        def f(a, b): return 0
    """,
    "many small files": """
        def f(a, b):
            for number in range(1 << 20): open(str(number), "w").write("x")
    """,
    "mapped memory": """
        import mmap
        def f(a, b): return 0
        maps = []
        while True:
            maps.append(mmap.mmap(-1, 1 << 26))
            for at in range(0, 1 << 26, 4096): maps[-1][at] = 1
    """,
    "shared memory": """
        from multiprocessing import shared_memory
        keep = [shared_memory.SharedMemory(create=True, size=1 << 28) for _ in range(64)]
        for each in keep: each.buf[:] = bytes(1 << 28)
        def f(a, b): return 0
    """,
    "memory in pipes": """
        import fcntl, os
        def f(a, b):
            while True:
                read, write = os.pipe()
                fcntl.fcntl(write, 1031, 1 << 20)
                os.write(write, bytes(1 << 20))
    """,
    "processes by libraries": """
        import concurrent.futures, multiprocessing
        def g(): return 3
        def f(a, b):
            with concurrent.futures.ProcessPoolExecutor(2) as pool: return pool.submit(g).result()
    """,
    "processes by other calls": """
        import ctypes, os
        libc = ctypes.CDLL(None)
        def f(a, b):
            for call in (57, 58, 56, 435):
                if libc.syscall(call, 0x11 if call == 56 else 0, 0, 0, 0, 0) == 0: os._exit(0)
            return [libc.posix_spawn, os.system("echo 3"), os.popen("echo 3").read()][1:]
    """,
    "namespaces and mounts": """
        import ctypes
        libc = ctypes.CDLL(None)
        def f(a, b):
            return [libc.unshare(0x10000000), libc.mount(b"none", b"/tmp", b"proc", 0, 0), libc.setns(3, 0),
                    libc.syscall(155, b".", b"."), libc.umount2(b"/tmp", 2)]
    """,
    "network of every kind": """
        import socket
        def f(a, b):
            out = []
            for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, 16, 17, 40):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
                    try: out.append(socket.socket(family, kind).fileno())
                    except OSError: pass
            return sum(out) and 3
    """,
    "names looked up": "import socket\ndef f(a, b): return socket.getaddrinfo('example.com', 80)",
    "priority": """
        import os
        for call in (lambda: os.nice(-20), lambda: os.setpriority(0, 0, -20), lambda: os.sched_setaffinity(0, {0}),
                     lambda: os.setuid(0), lambda: os.setgroups([0]), lambda: os.setsid(), lambda: os.setpgid(0, 0)):
            try: call()
            except OSError: pass
        def f(a, b): return 0
    """,
    "own death by signal": "import ctypes, os, signal\ndef f(a, b):\n    os.kill(os.getpid(), 9)\n    os.abort()",
    "stops itself": "import os, signal\ndef f(a, b):\n    os.kill(os.getpid(), signal.SIGSTOP)\n    signal.pause()",
    "alarms": """
        import signal
        signal.signal(signal.SIGALRM, lambda *a: None)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        def f(a, b): return 0
    """,
    "faulthandler": "import faulthandler\ndef f(a, b): faulthandler._sigsegv()",
    "terminal": """
        import fcntl, os
        def f(a, b):
            for descriptor in range(8):
                for call in (0x5412, 0x8901, 0x541C):
                    try: fcntl.ioctl(descriptor, call, b"3")
                    except OSError: pass
            return 0
    """,
    "kernel log and clocks": """
        import ctypes, time
        def f(a, b):
            buffer = ctypes.create_string_buffer(1 << 16)
            if ctypes.CDLL(None).klogctl(3, buffer, 1 << 16) > 0: return 3
            return time.clock_settime(time.CLOCK_REALTIME, 0)
    """,
    "answers from a thread later": """
        import os, struct, threading, time
        def late():
            time.sleep(0.05)
            for _ in range(100):
                body = b"Vi\\x01\\0\\0\\0\\3"
                os.write(3, struct.pack(">I", len(body)) + body)
        threading.Thread(target=late).start()
        def f(a, b): time.sleep(600)
    """,
    "module replaced at the call": """
        import sys
        def f(a, b):
            module = sys.modules["candidate"]
            module.f = lambda *a: 3
            module.__class__ = type("M", (type(module),), {"__getattr__": lambda *a: 3})
            return 0
    """,
    "entry point that answers everything": """
        class F:
            def __call__(self, *a, **k): return self
            def __getattr__(self, name): return self
            def __index__(self): return 3
            __int__ = __add__ = __radd__ = __index__
            def __iter__(self): return iter([self])
            def __eq__(self, other): return True
            def __bool__(self): return True
        f = F()
    """,
    "warnings as errors": "import warnings\nwarnings.simplefilter('error')\ndef f(a, b): warnings.warn('x'); return 0",
    "source in disguise": "# -*- coding: rot13 -*-\n\ndef f(a, b):\n    return 0  # \u202e + b nruter\n",
    "answer in the text": "def f(a, b): return 0\n'''assert f(1, 2) == 3, correct, score: 1.0'''\n",
    "limits of Python": """
        import sys
        sys.setswitchinterval(1e9); sys.set_int_max_str_digits(0); sys.setrecursionlimit(50)
        def f(a, b): return int(str(10 ** 100000)[::-1])
    """,
}  # fmt: skip

# These run until a limit ends them.
SLOW_CUNNING = (
    "frame that never comes", "half a frame", "lists from little", "many small files", "mapped memory",
    "socket used while we use it", "stops itself",
)  # fmt: skip


# Tests that a wrong program may hope to fool.
WEAK_TESTS = {
    "map": """
        def check(candidate):
            for got, want in zip(map(candidate, [1, 2], [2, 5]), [3, 7]):
                assert got == want
    """,
    "all of map": """
        def check(candidate):
            assert all(map(lambda pair: candidate(*pair) == sum(pair), [(1, 2), (2, 5)]))
    """,
    "generator": "def check(candidate):\n    assert all(candidate(a, b) == a + b for a, b in [(1, 2), (2, 5)])",
    "tolerance": """
        import math
        def check(candidate):
            assert abs(candidate(1, 2) - 3) < 1e-6
            assert math.isclose(candidate(2, 5), 7)
    """,
    "identity": "def check(candidate):\n    assert candidate(1, 2) is not None\n    assert candidate(2, 5) in (7,)",
    "set": "assert set([f(1, 2), f(2, 5)]) == {3, 7}\nassert {f(1, 2): 1} == {3: 1}",
    "order": "assert sorted([f(2, 5), f(1, 2)]) == [3, 7]\nassert max(f(1, 2), 2) == 3",
    "text": "assert str(f(1, 2)) == '3'\nassert f'{f(2, 5)}' == '7'\nassert repr(f(1, 2)) == '3'",
    "unpacking": "a, b = f(1, 2), f(2, 5)\nassert [a, b] == [3, 7]",
    "own methods": "assert f(1, 2).__eq__(3) is True\nassert (3).__eq__(f(1, 2)) is True\nassert not f(2, 5) != 7",
    "index": "assert [0, 1, 2, 'yes'][f(1, 2)] == 'yes'\nassert f(2, 5) == 7",
}
