"""The thread pool's machine code: LLVM IR text, with a picture of the state that it shares with `pool.py`.

A *job* is a list of groups. A group is the steps up to a barrier; it has as many shares as there are threads (one, where all
its steps are serial). A share is claimed by compare-and-swap before it is run, so that it runs once whoever runs it:

- thread p claims its own shares first (p, p + workers, ...): data stays in its caches;
- one that has nothing to do for a few microseconds takes any share that nobody has claimed yet. A worker that is still asleep, was
  never started, died in a fork or lost its processor therefore holds nobody up, unless it stopped inside a share;
- who completes a group's last share publishes the next group. That is the barrier.

Which thread runs a share never changes what it computes. A thread that lags behind reads nothing but the pool's state until a
claim succeeds, and a claim succeeds only while its group is open: the caller need not wait for threads that do nothing.

Waiting is: spin, then, inside a job, spin with a sched_yield now and then, then sleep on the epoch (futex). State words, 64-bit, byte offsets:

    0 EPOCH   counts published groups; 8 + 16 * (epoch % 2): GROUP and SHARES of that epoch (0 shares: idle). Two slots, so that
              a reader who finds EPOCH unchanged after reading its slot has read one consistent pair
  128 COMPLETED shares of this group          256 workers asleep (a flag)      264 caller asleep (a flag)
  384 MUTEX   0 free, 1 held, 2 held and awaited
  512 JOB, 520 ERROR, 528 STOP, 536 WORKERS, 544 STEAL, 552 SPIN, 560 IDLE, 568 POLITE (turns of the wait loop)
  576 the caller's processor + 1 when workers were last kept off it (0: never)
  640 + 128 * share: CLAIM, the epoch in which this share was last claimed; then the thread id of worker `share`

A job: [threads, batch, profile, number of groups that will be published] then groups of three words [first row, end row, shares], then a
zero word. A row: [kernel, words in this row, flags (1: serial: one share of one), number of the row, arguments ...]. A profile, where not 0, is for each
row and share when it last began and ended and how long it ran in all, in nanoseconds.

A row whose flags say 4 calls no kernel: its arguments are jobs, one a share, each for some of the examples, which a share runs from
beginning to end without meeting anybody. Such a job publishes -1 groups; its kernels hear that they are share 0 of 1.

A *loop* is between two marks among the groups, [loop, 0: begin or 1: end, 0 shares]: its groups stand in the job once and are published
for every iteration. Who completes the last share before a mark steps the loop, which no barrier but that of the group itself has to order:

    0 iterations done   8 iterations in all   16 index of the first iteration   24 step of the index, 1 or -1
   32 the index   40 half read, 48 half written in this iteration   56 where kernels find the index (0: nowhere)
   64 the record behind its first mark   72 number of moving words   80 the moving words

A moving word, an argument whose address depends on the iteration, is [where it stands, base, number of terms] and terms [counter, stride]:
the word becomes base + the sum of counter * stride, where the counters are words 32, 40 and 48 of this loop and of those around it.
"""

from __future__ import annotations

from dslc.runtime.pool_loops import LOOPS
from dslc.runtime.pool_rows import ROWS
from dslc.runtime.pool_system import PARTS, SYSTEM

STATE_BYTES = 640
CLAIM_BYTES = 128
EPOCH, JOB, ERROR, STOP, WORKERS, STEAL, SPIN, IDLE, POLITE, CLAIMS = 0, 512, 520, 528, 536, 544, 552, 560, 568, 640
SERIAL = 1
BARRIER = 2
APART = 4
WHOLE = -1
ROW_HEADER_WORDS = 4
JOB_HEADER_WORDS = 4
RECORD_WORDS = 3
LOOP_WORDS = 11
LOOP_INDEX, LOOP_OLD, LOOP_NEW, LOOP_SEEN, LOOP_BODY, LOOP_MOVES = 4, 5, 6, 7, 8, 9
PROFILE_WORDS = 3
IMPORTS = ("syscall", "pthread_create", "sched_yield", "sched_getcpu", "clock_gettime", "memset")
EXPORTS = ("dslc_start", "dslc_launch", "dslc_alone", "dslc_stop", "dslc_spin")

# Locals are stack slots; the optimiser turns them into registers. Loads of shared words are acquire or stronger: free on x86-64.
_CODE = """
define internal i64 @read(ptr %state, i64 %offset) alwaysinline {
  %p = getelementptr i8, ptr %state, i64 %offset
  %v = load atomic i64, ptr %p acquire, align 8
  ret i64 %v
}

; wakes those who wait for the epoch where the flag at `offset` says that somebody sleeps (who: 1 workers, 2 caller)
define internal void @wake_sleepers(ptr %state, i64 %offset, i64 %who) alwaysinline {
  %flag = getelementptr i8, ptr %state, i64 %offset
  %seen = load atomic i64, ptr %flag seq_cst, align 8
  %none = icmp eq i64 %seen, 0
  br i1 %none, label %done, label %take
take:
  %was = atomicrmw xchg ptr %flag, i64 0 seq_cst
  %other = icmp eq i64 %was, 0
  br i1 %other, label %done, label %call
call:
  call void @wake(ptr %state, i64 %who)
  br label %done
done:
  ret void
}

; makes `group` (a record, or null: idle) the current one
define internal void @publish(ptr %state, ptr %group, i64 %shares) {
  %completed = getelementptr i8, ptr %state, i64 128
  store atomic i64 0, ptr %completed monotonic, align 8
  %old = load atomic i64, ptr %state monotonic, align 8
  %epoch = add i64 %old, 1
  %parity = and i64 %epoch, 1
  %at = mul i64 %parity, 16
  %group_at = add i64 %at, 8
  %shares_at = add i64 %at, 16
  %group_word = getelementptr i8, ptr %state, i64 %group_at
  %shares_word = getelementptr i8, ptr %state, i64 %shares_at
  %group_number = ptrtoint ptr %group to i64
  store atomic i64 %group_number, ptr %group_word release, align 8
  store atomic i64 %shares, ptr %shares_word release, align 8
  %ignored = atomicrmw xchg ptr %state, i64 %epoch seq_cst
  %idle = icmp eq i64 %shares, 0
  br i1 %idle, label %finished, label %more
finished:
  call void @wake_sleepers(ptr %state, i64 264, i64 2)
  ret void
more:
  %many = icmp ugt i64 %shares, 1
  br i1 %many, label %all, label %done
all:
  call void @wake_sleepers(ptr %state, i64 256, i64 1)
  call void @wake_sleepers(ptr %state, i64 264, i64 2)
  br label %done
done:
  ret void
}

define internal i1 @claim(ptr %state, i64 %epoch, i64 %share) alwaysinline {
  %from = mul i64 %share, 128
  %offset = add i64 %from, 640
  %p = getelementptr i8, ptr %state, i64 %offset
  %old = load atomic i64, ptr %p monotonic, align 8
  %late = icmp uge i64 %old, %epoch
  br i1 %late, label %no, label %try
try:
  %pair = cmpxchg ptr %p, i64 %old, i64 %epoch seq_cst monotonic
  %won = extractvalue { i64, i1 } %pair, 1
  ret i1 %won
no:
  ret i1 false
}

; runs a claimed share and publishes the next group if it was the last; returns whether it was
define internal i1 @run_share(ptr %state, ptr %group, i64 %shares, i64 %share) {
  %job.number = call i64 @read(ptr %state, i64 512)
  %job = inttoptr i64 %job.number to ptr
  %error = call i64 @run_rows(ptr %group, ptr %job, i64 %share)
  %bad = icmp ne i64 %error, 0
  br i1 %bad, label %tell, label %complete
tell:
  %error.word = getelementptr i8, ptr %state, i64 520
  store atomic i64 %error, ptr %error.word monotonic, align 8
  br label %complete
complete:
  %completed = getelementptr i8, ptr %state, i64 128
  %before = atomicrmw add ptr %completed, i64 1 seq_cst
  %count = add i64 %before, 1
  %last = icmp eq i64 %count, %shares
  br i1 %last, label %advance, label %no
advance:
  %behind = getelementptr i8, ptr %group, i64 24
  %next = call ptr @next_group(ptr %behind)
  %end = icmp eq ptr %next, null
  br i1 %end, label %idle, label %more
idle:
  call void @publish(ptr %state, ptr null, i64 0)
  ret i1 true
more:
  %shares.word = getelementptr i8, ptr %next, i64 16
  %next.shares = load i64, ptr %shares.word
  call void @publish(ptr %state, ptr %next, i64 %next.shares)
  ret i1 true
no:
  ret i1 false
}

; claims and runs shares from, from + stride, ...; bit 0: this thread published the next group, bit 1: it ran something
define internal i64 @run_shares(ptr %state, i64 %epoch, ptr %group, i64 %shares, i64 %from, i64 %stride) {
  %share.slot = alloca i64
  %ran.slot = alloca i64
  store i64 %from, ptr %share.slot
  store i64 0, ptr %ran.slot
  br label %loop
loop:
  %share = load i64, ptr %share.slot
  %next = add i64 %share, %stride
  store i64 %next, ptr %share.slot
  %more = icmp ult i64 %share, %shares
  br i1 %more, label %try, label %no
try:
  %mine = call i1 @claim(ptr %state, i64 %epoch, i64 %share)
  br i1 %mine, label %run, label %loop
run:
  store i64 2, ptr %ran.slot
  %last = call i1 @run_share(ptr %state, ptr %group, i64 %shares, i64 %share)
  br i1 %last, label %yes, label %loop
yes:
  ret i64 3
no:
  %ran = load i64, ptr %ran.slot
  ret i64 %ran
}

; the life of a thread inside the pool: until the epoch reaches `until` (the caller) or the pool stops (a worker)
define internal void @participate(ptr %state, i64 %me, i64 %until) {
  %seen.slot = alloca i64
  %turns.slot = alloca i64
  %eager.slot = alloca i1
  %helped.slot = alloca i1
  %delay.slot = alloca i64
  %group.slot = alloca ptr
  %shares.slot = alloca i64
  store i64 0, ptr %seen.slot
  store i64 0, ptr %turns.slot
  store i1 false, ptr %eager.slot
  store i1 false, ptr %helped.slot
  store i64 0, ptr %delay.slot
  store ptr null, ptr %group.slot
  store i64 0, ptr %shares.slot
  %workers = call i64 @read(ptr %state, i64 536)
  %steal = call i64 @read(ptr %state, i64 544)
  %steal.part = lshr i64 %steal, 4
  %soon = add i64 %steal.part, 1
  %spin = call i64 @read(ptr %state, i64 552)
  %idle = call i64 @read(ptr %state, i64 560)
  %patience.turns = call i64 @read(ptr %state, i64 568)
  %is.worker = icmp ne i64 %me, 0
  br label %loop
loop:
  %epoch = load atomic i64, ptr %state acquire, align 8
  %finished = icmp uge i64 %epoch, %until
  br i1 %finished, label %leave, label %look
look:
  %seen = load i64, ptr %seen.slot
  %same = icmp eq i64 %epoch, %seen
  br i1 %same, label %wait, label %new
new:
  %parity = and i64 %epoch, 1
  %at = mul i64 %parity, 16
  %group.at = add i64 %at, 8
  %shares.at = add i64 %at, 16
  %group.number = call i64 @read(ptr %state, i64 %group.at)
  %shares = call i64 @read(ptr %state, i64 %shares.at)
  %again = load atomic i64, ptr %state acquire, align 8
  %torn = icmp ne i64 %again, %epoch
  br i1 %torn, label %loop, label %consistent
consistent:
  %group = inttoptr i64 %group.number to ptr
  store i64 %epoch, ptr %seen.slot
  store i64 0, ptr %turns.slot
  ; who had to help last time helps sooner: the others seem to have no processor
  %helped.last = load i1, ptr %helped.slot
  %delay.new = select i1 %helped.last, i64 %soon, i64 %steal
  store i64 %delay.new, ptr %delay.slot
  store i1 false, ptr %helped.slot
  store ptr %group, ptr %group.slot
  store i64 %shares, ptr %shares.slot
  %stop = call i64 @read(ptr %state, i64 528)
  %stopping = icmp ne i64 %stop, 0
  %stop.me = and i1 %stopping, %is.worker
  br i1 %stop.me, label %leave, label %own
own:
  ; a single share goes to whoever published it, without waiting for thread 0
  %eager = load i1, ptr %eager.slot
  %single = icmp eq i64 %shares, 1
  %take = and i1 %eager, %single
  %from = select i1 %take, i64 0, i64 %me
  %did = call i64 @run_shares(ptr %state, i64 %epoch, ptr %group, i64 %shares, i64 %from, i64 %workers)
  %advanced = trunc i64 %did to i1
  store i1 %advanced, ptr %eager.slot
  br label %loop
wait:
  %turns.old = load i64, ptr %turns.slot
  %turns = add i64 %turns.old, 1
  store i64 %turns, ptr %turns.slot
  %open = load i64, ptr %shares.slot
  %busy = icmp ne i64 %open, 0
  %limit = select i1 %busy, i64 %spin, i64 %idle
  %delay = load i64, ptr %delay.slot
  %steal.now = icmp eq i64 %turns, %delay
  %help = and i1 %busy, %steal.now
  br i1 %help, label %others, label %patience
others:
  %open.group = load ptr, ptr %group.slot
  %did.others = call i64 @run_shares(ptr %state, i64 %epoch, ptr %open.group, i64 %open, i64 0, i64 1)
  %advanced.others = trunc i64 %did.others to i1
  store i1 %advanced.others, ptr %eager.slot
  %helped = icmp ne i64 %did.others, 0
  store i1 %helped, ptr %helped.slot
  br label %loop
patience:
  %tired = icmp uge i64 %turns, %limit
  br i1 %tired, label %sleep, label %awake
awake:
  ; after a while every 64th turn lets another thread have this processor: it may be the one that is waited for. An idle worker does not:
  ; it would be back only after that thread's time slice, where one that sleeps is back at once
  %low.bits = and i64 %turns, 63
  %round = icmp eq i64 %low.bits, 0
  %long = icmp uge i64 %turns, %patience.turns
  %round.busy = and i1 %round, %busy
  %polite = and i1 %round.busy, %long
  br i1 %polite, label %yield, label %relax
relax:
  {PAUSE}
  br label %loop
yield:
  call i32 @sched_yield()
  br label %loop
sleep:
  ; the flag is set before the kernel compares the epoch: whoever publishes after that sees the flag, or the kernel the new epoch
  %flag.at = select i1 %is.worker, i64 256, i64 264
  %who = select i1 %is.worker, i64 1, i64 2
  %flag = getelementptr i8, ptr %state, i64 %flag.at
  %ignored = atomicrmw xchg ptr %flag, i64 1 seq_cst
  call void @sleep_on(ptr %state, i64 %epoch, i64 %who)
  br label %loop
leave:
  ret void
}

define internal ptr @worker(ptr %record) {
  call void @write_float_control(i64 {FLOAT_DEFAULT})
  call void @wish_short_slices()
  %state.number = load i64, ptr %record
  %state = inttoptr i64 %state.number to ptr
  %me.word = getelementptr i8, ptr %record, i64 8
  %me = load i64, ptr %me.word
  %id = call i64 (i64, ...) @syscall(i64 {GETTID})
  %id.from = mul i64 %me, 128
  %id.offset = add i64 %id.from, 648
  %id.word = getelementptr i8, ptr %state, i64 %id.offset
  store atomic i64 %id, ptr %id.word release, align 8
  call void @participate(ptr %state, i64 %me, i64 -1)
  ret ptr null
}

; dslc_start(handle, record = [state, thread]): 0, or why pthread_create failed
define i32 @dslc_start(ptr %handle, ptr %record) {
  %status = call i32 @pthread_create(ptr %handle, ptr null, ptr @worker, ptr %record)
  ret i32 %status
}

define internal void @lock(ptr %state) {
  %mutex = getelementptr i8, ptr %state, i64 384
  %pair = cmpxchg ptr %mutex, i64 0, i64 1 seq_cst seq_cst
  %free = extractvalue { i64, i1 } %pair, 1
  br i1 %free, label %done, label %contended
contended:
  %was = atomicrmw xchg ptr %mutex, i64 2 seq_cst
  %mine = icmp eq i64 %was, 0
  br i1 %mine, label %done, label %sleep
sleep:
  call void @sleep_on(ptr %mutex, i64 2, i64 4)
  br label %contended
done:
  ret void
}

define internal void @unlock(ptr %state) {
  %mutex = getelementptr i8, ptr %state, i64 384
  %was = atomicrmw xchg ptr %mutex, i64 0 seq_cst
  %awaited = icmp eq i64 %was, 2
  br i1 %awaited, label %tell, label %done
tell:
  call void @wake(ptr %mutex, i64 4)
  br label %done
done:
  ret void
}

; dslc_launch(state, job): runs a job that has at least one group; 0, or (row number + 1) << 32 | status
define i64 @dslc_launch(ptr %state, ptr %job) {
  %float = call i64 @enter_float()
  call void @lock(ptr %state)
  %job.word = getelementptr i8, ptr %state, i64 512
  %error.word = getelementptr i8, ptr %state, i64 520
  %job.number = ptrtoint ptr %job to i64
  store atomic i64 %job.number, ptr %job.word monotonic, align 8
  store atomic i64 0, ptr %error.word monotonic, align 8
  %groups.word = getelementptr i8, ptr %job, i64 24
  %groups = load i64, ptr %groups.word
  %epoch = load atomic i64, ptr %state acquire, align 8
  %first = add i64 %epoch, 1
  %until = add i64 %first, %groups
  %start = getelementptr i8, ptr %job, i64 32
  %group = call ptr @next_group(ptr %start)
  %shares.word = getelementptr i8, ptr %group, i64 16
  %shares = load i64, ptr %shares.word
  %asleep = call i64 @read(ptr %state, i64 256)
  %awake = icmp eq i64 %asleep, 0
  br i1 %awake, label %go, label %apart
apart:
  call void @keep_apart(ptr %state)
  br label %go
go:
  call void @publish(ptr %state, ptr %group, i64 %shares)
  call void @participate(ptr %state, i64 0, i64 %until)
  %error = load atomic i64, ptr %error.word acquire, align 8
  call void @unlock(ptr %state)
  call void @leave_float(i64 %float)
  ret i64 %error
}

; dslc_alone(job): the same without a pool, for one thread
define i64 @dslc_alone(ptr %job) {
  %float = call i64 @enter_float()
  %error = call i64 @run_job(ptr %job, i64 0)
  call void @leave_float(i64 %float)
  ret i64 %error
}

; dslc_stop(state): every worker leaves; join the handles before this code is freed
define void @dslc_stop(ptr %state) {
  call void @lock(ptr %state)
  %stop = getelementptr i8, ptr %state, i64 528
  store atomic i64 1, ptr %stop seq_cst, align 8
  call void @publish(ptr %state, ptr null, i64 0)
  call void @wake(ptr %state, i64 1)
  call void @unlock(ptr %state)
  ret void
}

; dslc_spin(turns): as long as that many turns of the wait loop take, to find out how long one is
define void @dslc_spin(ptr %state, i64 %turns) {
  %left.slot = alloca i64
  store i64 %turns, ptr %left.slot
  br label %loop
loop:
  %left = load i64, ptr %left.slot
  %done = icmp eq i64 %left, 0
  br i1 %done, label %leave, label %turn
turn:
  %epoch = load atomic i64, ptr %state acquire, align 8
  {PAUSE}
  %less = sub i64 %left, 1
  store i64 %less, ptr %left.slot
  br label %loop
leave:
  ret void
}
"""


def pool_ir(machine: str) -> str | None:
    """The pool's IR for a machine (`platform.machine()`), or None where there is no pool: there, everything runs on one thread."""
    parts = PARTS.get({"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine.lower()))
    if parts is None:
        return None
    text = SYSTEM + LOOPS + ROWS + _CODE
    for name, value in parts.items():
        text = text.replace("{" + name + "}", value)
    return text
