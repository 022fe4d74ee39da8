"""A program and its tests in, a graded verdict that the program cannot forge out.

`execute` judges responses, `call` gives the values of calls, `probe` names the strongest
isolation level of this host. The caller's process never runs foreign code:

    caller ── judges' zygote ── judge     one per problem: tests, expected values, a stub
                     │            │
                     ╰── clerk ───┤       for many problems: tests that are data, no code
                                  │ frames of plain values, a nonce per run
              workers' zygote ── worker   one per program: the candidate and nothing else

Modules: `executor` (records in and out) over `lanes` (zygotes, jobs, retries); `repetition`
(flakiness), `joint` (a weaker mode, by name only), `packages` (what candidates may import beside
Python), `mutants` with `faults` (faulty copies of a reference), `instrument` with `mutation` and
`assertions` (what becomes of tests); inside the fences `zygote`, `court`, `judge` with `counting`,
`nursery`, `worker`; `wire` (values), `linked` (nodes and shared containers), `kernel` (fences),
`reasons`.
"""
