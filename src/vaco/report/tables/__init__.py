"""From archives to tables, statistics and typeset tables: no Matplotlib in here."""
