"""Hand-made kernels with the CPU ABI, as LLVM IR, and helpers to make jobs of them; no Numba needed."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

import numpy as np

from dslc.runtime import pool_code
from dslc.runtime.loader import Library, load_object
from dslc.runtime.pool import build_object

HEAD = "define i32 @{name}(ptr %ret, ptr %exc, i64 %row, i64 %thread, i64 %threads, i64 %batch)"

# y[i] = x[i] + 1 over args (x, y, count a batch element): every thread does its part of batch * count floats
ADD_ONE = (
    HEAD.format(name="add_one")
    + """ {
  %args = inttoptr i64 %row to ptr
  %x = load ptr, ptr %args
  %y.at = getelementptr i64, ptr %args, i64 1
  %y = load ptr, ptr %y.at
  %n.at = getelementptr i64, ptr %args, i64 2
  %n = load i64, ptr %n.at
  %total = mul i64 %n, %batch
  %a = mul i64 %thread, %total
  %begin = udiv i64 %a, %threads
  %next = add i64 %thread, 1
  %b = mul i64 %next, %total
  %end = udiv i64 %b, %threads
  br label %head
head:
  %i = phi i64 [ %begin, %0 ], [ %more, %body ]
  %go = icmp ult i64 %i, %end
  br i1 %go, label %body, label %done
body:
  %xp = getelementptr float, ptr %x, i64 %i
  %v = load float, ptr %xp, align 4
  %w = fadd float %v, 1.0
  %yp = getelementptr float, ptr %y, i64 %i
  store float %w, ptr %yp, align 4
  %more = add i64 %i, 1
  br label %head
done:
  ret i32 0
}
"""
)

# counts[thread] += 1
COUNT = (
    HEAD.format(name="count")
    + """ {
  %args = inttoptr i64 %row to ptr
  %base = load ptr, ptr %args
  %p = getelementptr i64, ptr %base, i64 %thread
  %v = load i64, ptr %p
  %w = add i64 %v, 1
  store i64 %w, ptr %p
  ret i32 0
}
"""
)

# seen[thread] = counts[0] + ... + counts[threads - 1]: right only if a barrier stands between `count` and this
GATHER = (
    HEAD.format(name="gather")
    + """ {
  %args = inttoptr i64 %row to ptr
  %base = load ptr, ptr %args
  %out.at = getelementptr i64, ptr %args, i64 1
  %out = load ptr, ptr %out.at
  br label %loop
loop:
  %i = phi i64 [ 0, %0 ], [ %j, %loop ]
  %s = phi i64 [ 0, %0 ], [ %t, %loop ]
  %p = getelementptr i64, ptr %base, i64 %i
  %v = load i64, ptr %p
  %t = add i64 %s, %v
  %j = add i64 %i, 1
  %more = icmp ult i64 %j, %threads
  br i1 %more, label %loop, label %end
end:
  %q = getelementptr i64, ptr %out, i64 %thread
  store i64 %t, ptr %q
  ret i32 0
}
"""
)

NOTHING = HEAD.format(name="nothing") + " {\n  ret i32 0\n}\n"
FAIL = HEAD.format(name="fail") + " {\n  ret i32 7\n}\n"

# works for `n` dependent additions, cut among the threads
WORK = (
    HEAD.format(name="work")
    + """ {
  %args = inttoptr i64 %row to ptr
  %out = load ptr, ptr %args
  %n.at = getelementptr i64, ptr %args, i64 1
  %n = load i64, ptr %n.at
  %share = udiv i64 %n, %threads
  br label %loop
loop:
  %i = phi i64 [ 0, %0 ], [ %j, %loop ]
  %s = phi double [ 0.0, %0 ], [ %t, %loop ]
  %t = fadd double %s, 1.0
  %j = add i64 %i, 1
  %more = icmp ult i64 %j, %share
  br i1 %more, label %loop, label %end
end:
  %at = mul i64 %thread, 16
  %p = getelementptr double, ptr %out, i64 %at
  store double %t, ptr %p
  ret i32 0
}
"""
)

# p[0] = p[0] * p[1]: shows the floating-point mode (a subnormal product is 0 under flush-to-zero)
MULTIPLY = (
    HEAD.format(name="multiply")
    + """ {
  %args = inttoptr i64 %row to ptr
  %p = load ptr, ptr %args
  %at = mul i64 %thread, 2
  %a.at = getelementptr float, ptr %p, i64 %at
  %b.at = getelementptr float, ptr %a.at, i64 1
  %a = load float, ptr %a.at
  %b = load float, ptr %b.at
  %c = fmul float %a, %b
  store float %c, ptr %a.at
  ret i32 0
}
"""
)

# y[i] = x[i] * w[i % 4] + lr over args (x, w, y, lr: a double), 4 floats an example, cut by examples
AFFINE = (
    HEAD.format(name="affine")
    + """ {
  %args = inttoptr i64 %row to ptr
  %x = load ptr, ptr %args
  %w.at = getelementptr i64, ptr %args, i64 1
  %w = load ptr, ptr %w.at
  %y.at = getelementptr i64, ptr %args, i64 2
  %y = load ptr, ptr %y.at
  %lr.at = getelementptr i64, ptr %args, i64 3
  %lr.p = load ptr, ptr %lr.at
  %lr.wide = load double, ptr %lr.p
  %lr = fptrunc double %lr.wide to float
  %a = mul i64 %thread, %batch
  %first = udiv i64 %a, %threads
  %begin = mul i64 %first, 4
  %next = add i64 %thread, 1
  %b = mul i64 %next, %batch
  %last = udiv i64 %b, %threads
  %end = mul i64 %last, 4
  br label %head
head:
  %i = phi i64 [ %begin, %0 ], [ %more, %body ]
  %go = icmp ult i64 %i, %end
  br i1 %go, label %body, label %done
body:
  %xp = getelementptr float, ptr %x, i64 %i
  %v = load float, ptr %xp, align 4
  %k = and i64 %i, 3
  %wp = getelementptr float, ptr %w, i64 %k
  %u = load float, ptr %wp
  %p = fmul float %v, %u
  %q = fadd float %p, %lr
  %yp = getelementptr float, ptr %y, i64 %i
  store float %q, ptr %yp, align 4
  %more = add i64 %i, 1
  br label %head
done:
  ret i32 0
}
"""
)

# to[0..n) = from[0..n) floats; the third argument is n itself, run it serially
COPY = (
    HEAD.format(name="copy")
    + """ {
  %args = inttoptr i64 %row to ptr
  %x = load ptr, ptr %args
  %y.at = getelementptr i64, ptr %args, i64 1
  %y = load ptr, ptr %y.at
  %n.at = getelementptr i64, ptr %args, i64 2
  %n = load i64, ptr %n.at
  %bytes = mul i64 %n, 4
  call void @llvm.memmove.p0.p0.i64(ptr %y, ptr %x, i64 %bytes, i1 false)
  ret i32 0
}
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)
"""
)

SOURCES = {
    "affine": AFFINE,
    "copy": COPY,
    "add_one": ADD_ONE,
    "count": COUNT,
    "gather": GATHER,
    "nothing": NOTHING,
    "fail": FAIL,
    "work": WORK,
    "multiply": MULTIPLY,
}


@cache
def kernel_object(name: str) -> bytes:
    """The object code of one kernel."""
    return build_object(SOURCES[name])


@cache
def kernel_library(name: str) -> Library:
    """The kernel, linked."""
    return load_object(kernel_object(name))


def kernel_address(name: str) -> int:
    """Where the kernel is."""
    return kernel_library(name).addresses[name]


@dataclass(frozen=True)
class Step:
    """A kernel call for `make_job`."""

    kernel: str
    args: tuple[int, ...] = ()
    serial: bool = False


def make_job(groups: list[list[Step]], threads: int, batch: int = 1, profile: int = 0) -> np.ndarray:
    """A job of groups of steps, as one int64 array that holds the rows too."""
    header = pool_code.JOB_HEADER_WORDS + 3 * len(groups) + 1
    rows: list[int] = []
    records: list[tuple[int, int, int]] = []
    number = 0
    for group in groups:
        begin = len(rows)
        for step in group:
            rows += [kernel_address(step.kernel), pool_code.ROW_HEADER_WORDS + len(step.args), int(step.serial), number, *step.args]
            number += 1
        records.append((begin, len(rows), 1 if all(s.serial for s in group) else threads))
    job = np.zeros(header + len(rows), np.int64)
    base = job.ctypes.data + 8 * header
    job[:4] = (threads, batch, profile, len(groups))
    for i, (begin, end, shares) in enumerate(records):
        job[4 + 3 * i : 7 + 3 * i] = (base + 8 * begin, base + 8 * end, shares)
    job[header:] = rows
    return job


def address(array: np.ndarray) -> int:
    """Where an array's data is."""
    return int(array.ctypes.data)


def float_control(value: int) -> int:
    """Set glibc's MXCSR through fesetenv-like means; returns the old value (x86-64 only)."""
    libm = ctypes.CDLL("libm.so.6")
    environment = (ctypes.c_uint32 * 8)()
    libm.fegetenv(environment)
    old = environment[7]
    environment[7] = value
    libm.fesetenv(environment)
    return old
