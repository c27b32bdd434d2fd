"""What the commands share on the terminal.

==========  ==========================================
options     the shared options and their values
group       finding, documenting and guarding commands
output      the only printer
tables      text that fits the terminal
history     tables of the history
edits       warnings about edits
interrupts  Ctrl-C
==========  ==========================================
"""
