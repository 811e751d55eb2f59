/* A guest that fits into a boot ROM, for virtual machines that start within a blink.
 *
 *   -DINTERRUPTS  real mode; the PIC, the PIT at 100 Hz, and HLT in between. Prints "TICK n jiffies=j" every 10 jiffies.
 *   -DMEMORY=MB   long mode, ring 3; MB of random numbers from 16 MiB on. Prints "TICK n" and, after each, whether their
 *                 sum is still right: "CHECK OK" or "CHECK BAD". It never rests.
 *
 * One flat image that is copied to 1000:0000 and entered there (make_guests.py). Output goes to COM1. */
.text
.code16
.globl _start
_start:
  cli
  cld
  movw $0x1000, %ax
  movw %ax, %ds
  movw %ax, %es
  xorw %ax, %ax
  movw %ax, %ss
  movw $0x8000, %sp
  movw $0x3fb, %dx      /* COM1: 115200 8n1, FIFOs, no interrupts */
  movb $0x80, %al
  outb %al, %dx
  movw $0x3f8, %dx
  movb $1, %al
  outb %al, %dx
  movw $0x3f9, %dx
  xorb %al, %al
  outb %al, %dx
  movw $0x3fb, %dx
  movb $3, %al
  outb %al, %dx
  movw $0x3fa, %dx
  movb $7, %al
  outb %al, %dx

#ifdef INTERRUPTS
  /* Without its local APIC it is the PIC that interrupts the processor. A firmware would let the APIC pass that on. */
  movl $1, %eax
  cpuid
  testl $0x200, %edx
  jz 1f
  movl $0x1b, %ecx
  rdmsr
  andl $0xfffff7ff, %eax
  wrmsr
1:
  /* Both PICs from the beginning, everything masked but IRQ 0, at vector 8. */
  movb $0x11, %al
  outb %al, $0x20
  outb %al, $0xa0
  movb $0x08, %al
  outb %al, $0x21
  movb $0x70, %al
  outb %al, $0xa1
  movb $4, %al
  outb %al, $0x21
  movb $2, %al
  outb %al, $0xa1
  movb $1, %al
  outb %al, $0x21
  outb %al, $0xa1
  movb $0xfe, %al
  outb %al, $0x21
  movb $0xff, %al
  outb %al, $0xa1
  xorw %ax, %ax
  movw %ax, %es
  movw $(timer - _start), %es:0x20
  movw $0x1000, %es:0x22
  movb $0x34, %al       /* PIT channel 0, mode 2 */
  outb %al, $0x43
  movb $(11932 & 255), %al
  outb %al, $0x40
  movb $(11932 >> 8), %al
  outb %al, $0x40
  sti
wait:
  hlt
  movl (jiffies - _start), %eax
  cmpl (next - _start), %eax
  jb wait
  addl $10, (next - _start)
  movw $(tick - _start), %si
  call puts16
  movl (count - _start), %eax
  incl (count - _start)
  call number16
  movw $(jiffies_are - _start), %si
  call puts16
  movl (jiffies - _start), %eax
  call number16
  movw $(newline - _start), %si
  call puts16
  jmp wait
timer:
  pushw %ax
  incl %cs:(jiffies - _start)
  movb $0x20, %al
  outb %al, $0x20
  popw %ax
  iretw
puts16:
  lodsb
  testb %al, %al
  jz 1f
  movw $0x3f8, %dx
  outb %al, %dx
  jmp puts16
1: ret
number16:
  movl $10, %ebx
  xorw %cx, %cx
1: xorl %edx, %edx
  divl %ebx
  pushw %dx
  incw %cx
  testl %eax, %eax
  jnz 1b
2: popw %ax
  addb $'0', %al
  movw $0x3f8, %dx
  outb %al, %dx
  loop 2b
  ret
.align 4
jiffies: .long 0
next: .long 10
count: .long 0
tick: .asciz "TICK "
jiffies_are: .asciz " jiffies="
newline: .asciz "\r\n"

#else
  /* Page tables at 0x20000: 1 GiB in pages of 2 MiB, for ring 3. Behind them a task state segment, which allows ring 3
   * all ports of its map. (The privilege level in the flags would be enough, but KVM may drop it when it interprets
   * iretq: seen with Linux 6.18 without VMX.) */
  movw $0x2000, %ax
  movw %ax, %es
  xorw %di, %di
  xorl %eax, %eax
  movw $(0x4000 / 4), %cx
  rep stosl
  movw $0x68, %es:0x3066
  movb $0xff, %es:0x30f0
  movl $0x21007, %es:0
  movl $0x22007, %es:0x1000
  movw $0x2000, %di
  movl $0x87, %eax
  movw $512, %cx
1: movl %eax, %es:(%di)
  addl $0x200000, %eax
  addw $8, %di
  loop 1b
  lgdtl (gdt_pointer - _start)
  movl $0x20, %eax      /* PAE */
  movl %eax, %cr4
  movl $0x20000, %eax
  movl %eax, %cr3
  movl $0xc0000080, %ecx
  movl $0x101, %eax     /* EFER: long mode, syscall */
  xorl %edx, %edx
  wrmsr
  movl $0x80000011, %eax
  movl %eax, %cr0
  ljmpl $8, $long_mode
.code64
long_mode:
  movw $0x10, %ax
  movw %ax, %ds
  movw %ax, %es
  movw %ax, %ss
  movw $0x30, %ax
  ltr %ax
  pushq $0x23           /* to ring 3: ss, rsp, flags with IOPL 3, cs, rip */
  pushq $0x18000
  pushq $0x3002
  pushq $0x2b
  leaq user(%rip), %rax
  pushq %rax
  iretq
user:
  movq $88172645463325252, %rax
  movq $0x1000000, %rdi
  movq $(MEMORY * 131072), %rcx
  xorl %ebx, %ebx
1: movq %rax, %rdx
  shlq $13, %rdx
  xorq %rdx, %rax
  movq %rax, %rdx
  shrq $7, %rdx
  xorq %rdx, %rax
  movq %rax, %rdx
  shlq $17, %rdx
  xorq %rdx, %rax
  movq %rax, (%rdi)
  addq $8, %rdi
  addq %rax, %rbx
  decq %rcx
  jnz 1b
  movq %rbx, sum(%rip)
  xorl %r15d, %r15d
again:
  leaq tick(%rip), %rsi
  call puts64
  movq %r15, %rax
  call number64
  leaq newline(%rip), %rsi
  call puts64
  incq %r15
  movq $0x1000000, %rdi
  movq $(MEMORY * 131072), %rcx
  xorl %ebx, %ebx
1: addq (%rdi), %rbx
  addq $8, %rdi
  decq %rcx
  jnz 1b
  leaq good(%rip), %rsi
  cmpq sum(%rip), %rbx
  je 2f
  leaq bad(%rip), %rsi
2: call puts64
  jmp again
puts64:
  lodsb
  testb %al, %al
  jz 1f
  movw $0x3f8, %dx
  outb %al, %dx
  jmp puts64
1: ret
number64:
  movl $10, %ebx
  xorl %ecx, %ecx
1: xorl %edx, %edx
  divq %rbx
  pushq %rdx
  incl %ecx
  testq %rax, %rax
  jnz 1b
2: popq %rax
  addb $'0', %al
  movw $0x3f8, %dx
  outb %al, %dx
  decl %ecx
  jnz 2b
  ret
.align 8
sum: .quad 0
/* null; code and data of ring 0; code (unused), data and code of ring 3; the task state segment at 0x23000 */
gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0, 0x00cff3000000ffff, 0x00affb000000ffff
  .quad 0x00008902300000f0, 0
gdt_pointer: .word 63
  .long gdt
tick: .asciz "TICK "
good: .asciz "CHECK OK\r\n"
bad: .asciz "CHECK BAD\r\n"
newline: .asciz "\r\n"
#endif
