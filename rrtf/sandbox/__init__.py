"""A program and its tests in, a graded verdict that the program cannot forge out.

`executor` takes records and returns verdicts; the caller's process never runs foreign code:

    caller ── judges' zygote ── judge     one per problem: tests, expected values, a stub
                     │            │
                     ╰── clerk ───┤       for many problems: tests that are data, no code
                                  │ frames of plain values, a nonce per run
              workers' zygote ── worker   one per program: the candidate and nothing else

Outside the fences: `executor` over `lanes` (zygotes, jobs, retries, isolation levels), `joint` (a
weaker mode, by name only), `packages` (what candidates may import beside Python), `instrument` with
`mutation` and `assertions` (what becomes of tests). Inside: `zygote`, `court`, `judge` with
`counting`, `nursery`, `worker`. Both: `wire` (values, reasons), `channel` (who asks the candidate),
`linked` (nodes and shared containers), `kernel` and `seccomp` (the fences).
"""
