"""Programs that write to the inherited descriptor themselves, in every framing that the protocol has and some that it
has not. `f(a, b)` should be a + b.
"""

_WRITE = """
import os, socket, struct, threading, time
def say(*parts):
    for part in parts:
        while part: part = part[os.write(3, part):]
def frame(body): return struct.pack(">I", len(body)) + body
"""
_DESYNCHRONISED = {
    "empty frame": "say(frame(b''))",
    "length alone": "say(b'\\0\\0\\0\\5')",
    "length of the other order": "say(struct.pack('<I', 6) + b'Vi\\1\\0\\0\\0\\3')",
    "negative length": "say(b'\\xff\\xff\\xff\\xffV')",
    "byte by byte": "[(say(bytes([byte])), time.sleep(0.001)) for byte in frame(b'Vi\\1\\0\\0\\0\\3') * 4]",
    "outcome of the load forged": "say(frame(b'VN'), frame(b'Vi\\1\\0\\0\\0\\3'), frame(b'VT'))",
    "entry point forged": "say(*[frame(b'VR' + struct.pack('<I', n)) for n in (0, 1, 2**32 - 1)])",
    "values of every type": "say(*[frame(b'Vk' + bytes([number])) for number in range(16)])",
    "errors of every form": "say(*[frame(b'E' + body) for body in (b'', b'N', b't\\0\\0\\0\\0', b'l')])",
    "limit forged and taken back": "say(frame(b'L'), frame(b'VN'))",
    "data behind a value": "say(frame(b'VNN'), frame(b'Vi\\1\\0\\0\\0\\3T'))",
    "number without bytes": "say(frame(b'Vi\\0\\0\\0\\0'), frame(b'Vi\\xff\\xff\\xff\\xff'))",
    "set of equal members": "say(frame(b'Ve\\2\\0\\0\\0NN'), frame(b'Vd\\1\\0\\0\\0l\\0\\0\\0\\0N'))",
    "text of half characters": "say(frame(b'Vs\\2\\0\\0\\0\\xed\\xa0'), frame(b'Vs\\1\\0\\0\\0\\xff'))",
    "columns that do not fit": "say(frame(b'VL' + b'\\1\\0\\0\\0\\7' + bytes(20)), frame(b'VL' + bytes(24)))",
    "columns of negative lengths": (
        "say(frame(b'VL\\2\\0\\0\\0\\2\\2' + bytes(12) + b'\\x10\\0\\0\\0' + b'\\xff' * 8 + b'\\1' + bytes(11)))"
    ),
    "floats that are no numbers": "say(frame(b'Vf' + b'\\xff' * 8), frame(b'Vf' + struct.pack('<d', 3.0)))",
    "the judge's own ready": "say(frame(b'ready'), frame(b'correct'), b'correct')",
    "two threads in one frame": (
        "[threading.Thread(target=say, args=(frame(b'Vi\\1\\0\\0\\0' + bytes([n])),)).start() for n in (4, 8)]"
    ),
    "descriptors passed along": "socket.send_fds(socket.socket(fileno=os.dup(3)), [frame(b'VN')], [0, 1, 2, 3])",
    "out of band": "socket.socket(fileno=os.dup(3)).send(frame(b'VN') + b'x', socket.MSG_OOB)",
    "reading side closed": "socket.socket(fileno=os.dup(3)).shutdown(socket.SHUT_RD)",
    "requests eaten": "socket.socket(fileno=os.dup(3)).recv(1 << 20, socket.MSG_DONTWAIT)",
    "non-blocking": "os.set_blocking(3, False); say(frame(b'VN'))",
    "spliced": ("(lambda ends: (os.write(ends[1], frame(b'VN')), os.splice(ends[0], 3, 6)))(os.pipe())"),
    "tracebacks of C": (
        "__import__('faulthandler').dump_traceback_later(0.001, repeat=True, file=3); time.sleep(0.05)"
    ),
    "wake-ups of signals": (
        "(lambda signal: (os.set_blocking(3, False), signal.set_wakeup_fd(3), signal.signal(14, lambda *a: None), "
        "signal.setitimer(0, 0.001, 0.001), time.sleep(0.05)))(__import__('signal'))"
    ),
}
FRAMES = {
    f"{name}, {when}": _WRITE
    + (f"{attempt}\ndef f(a, b): return 0\n" if when == "loading" else f"def f(a, b):\n    {attempt}\n    return 0\n")
    for name, attempt in _DESYNCHRONISED.items()
    for when in ("loading", "called")
}
