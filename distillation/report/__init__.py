"""The report: one self-contained HTML page that shows what a comparison found.

`inputs` reads metrics, predictions and the prepared set; a module for each kind of picture or table
makes its part; `page` puts them into `template.html` and writes the file. Nothing here imports
torch, and nothing in the page comes from a network.
"""
