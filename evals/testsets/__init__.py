"""Test sets: cases proposed from documents and from what was asked, and decided on by people."""
