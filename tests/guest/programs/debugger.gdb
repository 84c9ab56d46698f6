# SPDX-License-Identifier: GPL-2.0-or-later
# What people do with a debugger, to debugged.c.
set pagination off
set confirm off
set width 0
set disable-randomization on
break step if n == 2
run
print n
backtrace
step
stepi
stepi
x/i $pc
info registers rip
finish
delete
echo ---- hardware watchpoints\n
watch counter
continue
continue
delete
rwatch record.narrow
continue
delete
awatch other
continue
continue
watch record.narrow
continue
continue
continue
info watchpoints
delete
echo ---- a hardware breakpoint\n
hbreak step
continue
continue
print counter
delete
echo ---- a software watchpoint\n
set can-use-hw-watchpoints 0
watch record.narrow
continue
delete
echo ---- a changed program\n
set variable counter = 100
catch syscall write
continue
continue
delete
continue
