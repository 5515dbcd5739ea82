"""How a thread runs its share of a group: LLVM IR text. `pool_code.py` has the layout of a job and of its rows."""

from __future__ import annotations

ROWS = """
; one share of the rows of a group; returns 0, or (row number + 1) << 32 | status of the last kernel that failed
define internal i64 @run_rows(ptr %group, ptr %job, i64 %share) {
  %slots = alloca [8 x i64]
  %row.slot = alloca ptr
  %error.slot = alloca i64
  store i64 0, ptr %error.slot
  %threads = load i64, ptr %job
  %batch.word = getelementptr i8, ptr %job, i64 8
  %batch = load i64, ptr %batch.word
  %profile.word = getelementptr i8, ptr %job, i64 16
  %profile = load i64, ptr %profile.word
  %published.word = getelementptr i8, ptr %job, i64 24
  %published = load i64, ptr %published.word
  %whole = icmp slt i64 %published, 0
  %first = load ptr, ptr %group
  %end.word = getelementptr i8, ptr %group, i64 8
  %end = load ptr, ptr %end.word
  store ptr %first, ptr %row.slot
  br label %loop
loop:
  %row = load ptr, ptr %row.slot
  %over = icmp eq ptr %row, %end
  br i1 %over, label %leave, label %step
step:
  %words.word = getelementptr i8, ptr %row, i64 8
  %words = load i64, ptr %words.word
  %bytes = mul i64 %words, 8
  %next = getelementptr i8, ptr %row, i64 %bytes
  store ptr %next, ptr %row.slot
  %flags.word = getelementptr i8, ptr %row, i64 16
  %flags = load i64, ptr %flags.word
  %serial.bit = and i64 %flags, 1
  %serial = icmp ne i64 %serial.bit, 0
  %other = icmp ne i64 %share, 0
  %skip = and i1 %serial, %other
  br i1 %skip, label %loop, label %run
run:
  %args.word = getelementptr i8, ptr %row, i64 32
  %apart.bit = and i64 %flags, 4
  %apart = icmp ne i64 %apart.bit, 0
  br i1 %apart, label %jobs, label %call
jobs:
  %error.apart = call i64 @run_apart(ptr %args.word, i64 %words, i64 %threads, i64 %share)
  %good.apart = icmp eq i64 %error.apart, 0
  br i1 %good.apart, label %loop, label %fail.apart
fail.apart:
  store i64 %error.apart, ptr %error.slot
  br label %loop
call:
  %number.word = getelementptr i8, ptr %row, i64 24
  %number = load i64, ptr %number.word
  %kernel = load ptr, ptr %row
  %args = ptrtoint ptr %args.word to i64
  %one.part = or i1 %serial, %whole
  %parts = select i1 %one.part, i64 1, i64 %threads
  %part = select i1 %whole, i64 0, i64 %share
  %timed = icmp ne i64 %profile, 0
  br i1 %timed, label %measure, label %plain
plain:
  %status.plain = call i32 %kernel(ptr %slots, ptr %slots, i64 %args, i64 %part, i64 %parts, i64 %batch)
  br label %check
measure:
  %begin = call i64 @now()
  %status.timed = call i32 %kernel(ptr %slots, ptr %slots, i64 %args, i64 %part, i64 %parts, i64 %batch)
  %finish = call i64 @now()
  %line = mul i64 %number, %threads
  %cell = add i64 %line, %share
  %offset = mul i64 %cell, 24
  %address = add i64 %profile, %offset
  %out = inttoptr i64 %address to ptr
  store i64 %begin, ptr %out
  %out.end = getelementptr i8, ptr %out, i64 8
  store i64 %finish, ptr %out.end
  %out.total = getelementptr i8, ptr %out, i64 16
  %total.old = load i64, ptr %out.total
  %ran = sub i64 %finish, %begin
  %total = add i64 %total.old, %ran
  store i64 %total, ptr %out.total
  br label %check
check:
  %status = phi i32 [ %status.plain, %plain ], [ %status.timed, %measure ]
  %good = icmp eq i32 %status, 0
  br i1 %good, label %loop, label %fail
fail:
  %one = add i64 %number, 1
  %high = shl i64 %one, 32
  %low = zext i32 %status to i64
  %error = or i64 %high, %low
  store i64 %error, ptr %error.slot
  br label %loop
leave:
  %result = load i64, ptr %error.slot
  ret i64 %result
}

; the job of a share, or of every share where there is one thread; as run_rows
define internal i64 @run_apart(ptr %jobs, i64 %words, i64 %threads, i64 %share) {
  %at.slot = alloca i64
  %error.slot = alloca i64
  store i64 0, ptr %error.slot
  %count = sub i64 %words, 4
  %alone = icmp eq i64 %threads, 1
  %first = select i1 %alone, i64 0, i64 %share
  %behind = add i64 %share, 1
  %end = select i1 %alone, i64 %count, i64 %behind
  store i64 %first, ptr %at.slot
  br label %loop
loop:
  %at = load i64, ptr %at.slot
  %over = icmp eq i64 %at, %end
  br i1 %over, label %leave, label %run
run:
  %next = add i64 %at, 1
  store i64 %next, ptr %at.slot
  %word = getelementptr i64, ptr %jobs, i64 %at
  %job = load ptr, ptr %word
  %error = call i64 @run_job(ptr %job, i64 %at)
  %old = load i64, ptr %error.slot
  %bad = icmp ne i64 %error, 0
  %kept = select i1 %bad, i64 %error, i64 %old
  store i64 %kept, ptr %error.slot
  br label %loop
leave:
  %result = load i64, ptr %error.slot
  ret i64 %result
}

; one share of every group of a job, in order and without a pool; as run_rows
define internal i64 @run_job(ptr %job, i64 %share) {
  %record.slot = alloca ptr
  %error.slot = alloca i64
  store i64 0, ptr %error.slot
  %start = getelementptr i8, ptr %job, i64 32
  store ptr %start, ptr %record.slot
  br label %loop
loop:
  %record = load ptr, ptr %record.slot
  %group = call ptr @next_group(ptr %record)
  %end = icmp eq ptr %group, null
  br i1 %end, label %leave, label %run
run:
  %error = call i64 @run_rows(ptr %group, ptr %job, i64 %share)
  %old = load i64, ptr %error.slot
  %bad = icmp ne i64 %error, 0
  %kept = select i1 %bad, i64 %error, i64 %old
  store i64 %kept, ptr %error.slot
  %next = getelementptr i8, ptr %group, i64 24
  store ptr %next, ptr %record.slot
  br label %loop
leave:
  %result = load i64, ptr %error.slot
  ret i64 %result
}
"""
