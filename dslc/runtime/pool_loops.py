"""How the pool's machine code steps loops: LLVM IR text. `pool_code.py` has the layout of a job, of its marks and of its loops.

One thread runs this at a time, the one that completed the last share of a group, before it publishes the next.
"""

from __future__ import annotations

LOOPS = """
; writes the arguments that depend on this loop's iteration
define internal void @move_words(ptr %loop) {
  %left.slot = alloca i64
  %at.slot = alloca ptr
  %terms.slot = alloca i64
  %sum.slot = alloca i64
  %count.word = getelementptr i8, ptr %loop, i64 72
  %count = load i64, ptr %count.word
  %records.word = getelementptr i8, ptr %loop, i64 80
  %records = load ptr, ptr %records.word
  store i64 %count, ptr %left.slot
  store ptr %records, ptr %at.slot
  br label %words
words:
  %left = load i64, ptr %left.slot
  %over = icmp eq i64 %left, 0
  br i1 %over, label %leave, label %word
word:
  %less = sub i64 %left, 1
  store i64 %less, ptr %left.slot
  %at = load ptr, ptr %at.slot
  %target = load ptr, ptr %at
  %base.word = getelementptr i8, ptr %at, i64 8
  %base = load i64, ptr %base.word
  %terms.word = getelementptr i8, ptr %at, i64 16
  %terms = load i64, ptr %terms.word
  %first.term = getelementptr i8, ptr %at, i64 24
  store i64 %base, ptr %sum.slot
  store i64 %terms, ptr %terms.slot
  store ptr %first.term, ptr %at.slot
  br label %sums
sums:
  %rest = load i64, ptr %terms.slot
  %summed = icmp eq i64 %rest, 0
  br i1 %summed, label %write, label %term
term:
  %fewer = sub i64 %rest, 1
  store i64 %fewer, ptr %terms.slot
  %pair = load ptr, ptr %at.slot
  %counter.word = load ptr, ptr %pair
  %counter = load i64, ptr %counter.word
  %stride.word = getelementptr i8, ptr %pair, i64 8
  %stride = load i64, ptr %stride.word
  %far = mul i64 %counter, %stride
  %sum.old = load i64, ptr %sum.slot
  %sum = add i64 %sum.old, %far
  store i64 %sum, ptr %sum.slot
  %next.term = getelementptr i8, ptr %pair, i64 16
  store ptr %next.term, ptr %at.slot
  br label %sums
write:
  %value = load i64, ptr %sum.slot
  store i64 %value, ptr %target
  br label %words
leave:
  ret void
}

; from a record on, steps loops at their marks up to the next group; null where the job is over
define internal ptr @next_group(ptr %start) {
  %at.slot = alloca ptr
  %done.slot = alloca i64
  %index.slot = alloca i64
  store ptr %start, ptr %at.slot
  br label %look
look:
  %at = load ptr, ptr %at.slot
  %loop = load ptr, ptr %at
  %none = icmp eq ptr %loop, null
  br i1 %none, label %over, label %record
over:
  ret ptr null
record:
  %shares.word = getelementptr i8, ptr %at, i64 16
  %shares = load i64, ptr %shares.word
  %group = icmp ne i64 %shares, 0
  br i1 %group, label %found, label %mark
found:
  ret ptr %at
mark:
  %kind.word = getelementptr i8, ptr %at, i64 8
  %kind = load i64, ptr %kind.word
  %done.word = getelementptr i8, ptr %loop, i64 0
  %length.word = getelementptr i8, ptr %loop, i64 8
  %first.word = getelementptr i8, ptr %loop, i64 16
  %step.word = getelementptr i8, ptr %loop, i64 24
  %index.word = getelementptr i8, ptr %loop, i64 32
  %old.word = getelementptr i8, ptr %loop, i64 40
  %new.word = getelementptr i8, ptr %loop, i64 48
  %seen.word = getelementptr i8, ptr %loop, i64 56
  %body.word = getelementptr i8, ptr %loop, i64 64
  %length = load i64, ptr %length.word
  %begins = icmp eq i64 %kind, 0
  br i1 %begins, label %begin, label %end
begin:
  %first = load i64, ptr %first.word
  store i64 0, ptr %done.slot
  store i64 %first, ptr %index.slot
  br label %iterate
end:
  %before = load i64, ptr %done.word
  %after = add i64 %before, 1
  %index.before = load i64, ptr %index.word
  %step = load i64, ptr %step.word
  %index.after = add i64 %index.before, %step
  store i64 %after, ptr %done.slot
  store i64 %index.after, ptr %index.slot
  %ends = icmp sge i64 %after, %length
  br i1 %ends, label %behind, label %iterate
behind:
  %next = getelementptr i8, ptr %at, i64 24
  store ptr %next, ptr %at.slot
  br label %look
iterate:
  %done = load i64, ptr %done.slot
  %index = load i64, ptr %index.slot
  store i64 %done, ptr %done.word
  store i64 %index, ptr %index.word
  %turn = add i64 %done, %length
  %old = and i64 %turn, 1
  %new = sub i64 1, %old
  store i64 %old, ptr %old.word
  store i64 %new, ptr %new.word
  %seen = load ptr, ptr %seen.word
  %nobody = icmp eq ptr %seen, null
  br i1 %nobody, label %moves, label %show
show:
  store i64 %index, ptr %seen
  br label %moves
moves:
  call void @move_words(ptr %loop)
  %body = load ptr, ptr %body.word
  store ptr %body, ptr %at.slot
  br label %look
}
"""
