"""Does a training set contain the tasks it will be evaluated on? Detectors, evidence, a verdict.

The paper says that its data does not leak into HumanEval, and gives neither method nor threshold
nor number. Here words, code and behaviour are compared: `rows` reads what is audited and holds its
normal forms, `detectors` finds resemblances, `running` executes rows on the tasks' inputs,
`verdict` tells leaks from chance, `views` shows it and writes the certificate, `plants` makes
leaks on purpose and counts which of them each detector notices.
"""
