"""How complete the API and the command line are: facts from the specifications, what the code does, what shows it.

`scripts/coverage` writes `docs/coverage.md` from this; a test fails when the page is stale.

    derive.py   the specifications -> data/api.tsv, data/cli.tsv, data/schema.json (names and types only)
    code.py     what the code does with each fact: done, refused, kept or missing; read from routes, documents and flags
    proofs.py   which test shows a fact; data/proofs.tsv keeps the choice, so that the page changes only when it must
    page.py     the page
"""
