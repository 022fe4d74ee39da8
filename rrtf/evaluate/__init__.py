"""What every trained model solves, how sure that is, and what it owes to which part of RRTF.

The notebook samples, executes, then scores; here is what happens before and after: who takes
part, the scores of executions, results with intervals, the planned comparisons, and sentences
that say of a comparison no more than it shows.

Modules: `exam` (who answers what, scores), `differences` (results, comparisons, sentences),
`flagged` (tasks that leak apart from the others).
"""
