"""Why a job did or did not run, in sentences. Facts in, sentences out: no database here, and no cause that is not shown.

`timeline` says when the job owed what, `attempts` describes the requests, and `explain` puts both together.
"""
