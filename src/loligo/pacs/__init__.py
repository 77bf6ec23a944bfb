"""The link to a PACS: studies come in, are scored once each, and results go back; nothing acknowledged is lost.

`inbox` keeps what `receive` (C-STORE) and `fetch` (Orthanc, DICOMweb) bring, `store` is the durable queue, `work`
scores by a model in memory what `decode` reads in a child, `send` returns results, and `serve` runs all of them.
"""
