"""Reports of an evaluation, for people and for what runs tests: HTML, JUnit XML, Markdown."""
