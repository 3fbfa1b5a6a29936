"""A model together with the ordinary method of its task: how much each counts, by kind of answer."""
