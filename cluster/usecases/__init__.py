"""What the API and the commands ask for: change jobs, trigger and replay executions, import, explain, verify.

Functions of values: a request is a value when it comes here (`WantedJob`), and so is the answer. A change is one write of
one document, or an ordered series of writes that may be repeated.

Never here: JSON documents and their models (`core/documents`), HTTP (`api/`).
"""
