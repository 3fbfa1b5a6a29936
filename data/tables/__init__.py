"""Tables as people have them: dialects, kinds of columns, dates, what was odd."""
