"""Every picture and table of the notebooks: values in, a Figure or an HTML table out.

`style` holds colours and the canvas, `tables` and `charts` draw.
"""
