"""Every picture and table of the notebooks: values in, a Figure or an HTML table out.

`style` holds colours and the canvas; the others draw: `tables`, `rates` (with intervals), `counts`
(distributions), `runs` (training), `boards` (pairs), `paper` (the paper's own figures).
"""
