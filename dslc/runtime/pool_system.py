"""What the pool's machine code asks of the processor and of Linux: LLVM IR text, with the parts that depend on the architecture.

Futexes, the clock, scheduling wishes, affinity, and the mode of floating-point arithmetic. System calls are numbers, since the C library
has no wrapper for most of these; the ones that only wish for something may fail, and nothing comes of it.
"""

from __future__ import annotations

PARTS = {
    "x86_64": {
        "PAUSE": "call void @llvm.x86.sse2.pause()",
        "FUTEX": "202",
        "GETTID": "186",
        "SETAFFINITY": "203",
        "GETAFFINITY": "204",
        "SETATTR": "314",
        "GETATTR": "315",
        "DECLARE": """
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal i64 @read_float_control() {
  %slot = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %slot)
  %all = load i32, ptr %slot
  %control = and i32 %all, 65472
  %wide = zext i32 %control to i64
  ret i64 %wide
}
define internal void @write_float_control(i64 %value) {
  %slot = alloca i32
  %narrow = trunc i64 %value to i32
  store i32 %narrow, ptr %slot
  call void @llvm.x86.sse.ldmxcsr(ptr %slot)
  ret void
}""",
        "FLOAT_DEFAULT": "8064",
    },
    "aarch64": {
        "PAUSE": "call void @llvm.aarch64.hint(i32 1)",
        "FUTEX": "98",
        "GETTID": "178",
        "SETAFFINITY": "122",
        "GETAFFINITY": "123",
        "SETATTR": "274",
        "GETATTR": "275",
        "DECLARE": """
declare void @llvm.aarch64.hint(i32)
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define internal i64 @read_float_control() {
  %value = call i64 @llvm.aarch64.get.fpcr()
  ret i64 %value
}
define internal void @write_float_control(i64 %value) {
  call void @llvm.aarch64.set.fpcr(i64 %value)
  ret void
}""",
        "FLOAT_DEFAULT": "0",
    },
}

SYSTEM = """
declare i64 @syscall(i64, ...)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @sched_yield()
declare i32 @sched_getcpu()
declare i32 @clock_gettime(i32, ptr)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
{DECLARE}

; FUTEX_WAIT_BITSET and FUTEX_WAKE_BITSET, private; both return whatever the kernel says: every caller checks again
define internal void @sleep_on(ptr %word, i64 %seen, i64 %who) noinline {
  %expected = trunc i64 %seen to i32
  call i64 (i64, ...) @syscall(i64 {FUTEX}, ptr %word, i64 137, i32 %expected, ptr null, ptr null, i64 %who)
  ret void
}

define internal void @wake(ptr %word, i64 %who) noinline {
  call i64 (i64, ...) @syscall(i64 {FUTEX}, ptr %word, i64 138, i64 2147483647, ptr null, ptr null, i64 %who)
  ret void
}

define internal i64 @now() noinline {
  %time = alloca [2 x i64]
  call i32 @clock_gettime(i32 1, ptr %time)
  %s = load i64, ptr %time
  %second = getelementptr i8, ptr %time, i64 8
  %ns = load i64, ptr %second
  %big = mul i64 %s, 1000000000
  %sum = add i64 %big, %ns
  ret i64 %sum
}

; a time slice of 0.3 ms for this thread, where the kernel knows that wish (Linux 6.12; others ignore it): a worker that wakes up then
; takes the processor from a thread with the usual slice at once, an OpenMP thread that spins for work, say, instead of after its slice
define internal void @wish_short_slices() {
  %attributes = alloca [6 x i64]
  %read = call i64 (i64, ...) @syscall(i64 {GETATTR}, i64 0, ptr %attributes, i64 48, i64 0)
  %policy.word = getelementptr i8, ptr %attributes, i64 4
  %policy = load i32, ptr %policy.word
  %failed = icmp ne i64 %read, 0
  %special = icmp ne i32 %policy, 0
  %leave.it = or i1 %failed, %special
  br i1 %leave.it, label %done, label %set
set:
  store i32 48, ptr %attributes
  %slice.word = getelementptr i8, ptr %attributes, i64 24
  store i64 300000, ptr %slice.word
  call i64 (i64, ...) @syscall(i64 {SETATTR}, i64 0, ptr %attributes, i64 0)
  br label %done
done:
  ret void
}

; flush-to-zero and rounding modes that other libraries set must not change results: kernels run under the default
define internal i64 @enter_float() {
  %old = call i64 @read_float_control()
  %same = icmp eq i64 %old, {FLOAT_DEFAULT}
  br i1 %same, label %done, label %set
set:
  call void @write_float_control(i64 {FLOAT_DEFAULT})
  br label %done
done:
  ret i64 %old
}

define internal void @leave_float(i64 %old) {
  %same = icmp eq i64 %old, {FLOAT_DEFAULT}
  br i1 %same, label %done, label %set
set:
  call void @write_float_control(i64 %old)
  br label %done
done:
  ret void
}

; before sleeping workers are woken: keep them off the caller's processor. The kernel likes to wake a thread beside the one that wakes
; it, and moves it away a few milliseconds later, when most jobs are done. Does something only when the caller has moved.
define internal void @keep_apart(ptr %state) noinline {
  %mask = alloca [16 x i64]
  %me.slot = alloca i64
  %cpu.narrow = call i32 @sched_getcpu()
  %cpu = sext i32 %cpu.narrow to i64
  %last.word = getelementptr i8, ptr %state, i64 576
  %last = load i64, ptr %last.word
  %cpu.number = add i64 %cpu, 1
  %same = icmp eq i64 %cpu.number, %last
  %strange = icmp ugt i64 %cpu, 1023
  %leave.it = or i1 %same, %strange
  br i1 %leave.it, label %done, label %ask
ask:
  call void @llvm.memset.p0.i64(ptr %mask, i8 0, i64 128, i1 false)
  %got = call i64 (i64, ...) @syscall(i64 {GETAFFINITY}, i64 0, i64 128, ptr %mask)
  %failed = icmp slt i64 %got, 1
  br i1 %failed, label %done, label %clear
clear:
  store i64 %cpu.number, ptr %last.word
  %index = lshr i64 %cpu, 6
  %bit.number = and i64 %cpu, 63
  %bit = shl i64 1, %bit.number
  %inverse = xor i64 %bit, -1
  %mask.word = getelementptr i64, ptr %mask, i64 %index
  %mask.old = load i64, ptr %mask.word
  %mask.new = and i64 %mask.old, %inverse
  store i64 %mask.new, ptr %mask.word
  br label %sum
sum:
  %i = phi i64 [ 0, %clear ], [ %i.next, %sum ]
  %any = phi i64 [ 0, %clear ], [ %any.next, %sum ]
  %part.word = getelementptr i64, ptr %mask, i64 %i
  %part = load i64, ptr %part.word
  %any.next = or i64 %any, %part
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, 16
  br i1 %more, label %sum, label %check
check:
  %nowhere = icmp eq i64 %any.next, 0
  br i1 %nowhere, label %restore, label %begin
restore:
  store i64 %mask.old, ptr %mask.word
  br label %begin
begin:
  %workers = call i64 @read(ptr %state, i64 536)
  store i64 1, ptr %me.slot
  br label %loop
loop:
  %me = load i64, ptr %me.slot
  %me.next = add i64 %me, 1
  store i64 %me.next, ptr %me.slot
  %left = icmp ult i64 %me, %workers
  br i1 %left, label %move, label %done
move:
  %id.from = mul i64 %me, 128
  %id.offset = add i64 %id.from, 648
  %id = call i64 @read(ptr %state, i64 %id.offset)
  %unborn = icmp eq i64 %id, 0
  br i1 %unborn, label %later, label %set
later:
  store i64 0, ptr %last.word
  br label %loop
set:
  call i64 (i64, ...) @syscall(i64 {SETAFFINITY}, i64 %id, i64 128, ptr %mask)
  br label %loop
done:
  ret void
}
"""
