"""What every trained model solves, how sure that is, and what it owes to which part of RRTF.

The notebook samples, executes, then scores; here is what happens before and after. Modules:
`grade` (counts of verdicts), `results` (scores, rates with intervals, planned comparisons, boards,
and sentences that say of a comparison no more than it shows), `exam` (who answers what, scores,
tasks that leak apart from the others).
"""
