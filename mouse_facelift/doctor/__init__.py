"""`mfl doctor`: one look at this machine and at a data set, and how to mend what does not work."""
