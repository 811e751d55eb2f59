/* The beginning of every guest. Each processor comes here in real mode at 1000:0000 - the first by the monitor,
 * the others by SIPI with vector 0x10 - and goes on to long mode with the page tables that the monitor has made.
 * There prepare() runs in ring 0, and then work() in ring 3 or, if the guest says so, in ring 0.
 *
 * Ring 0 is as short as possible: where KVM has no help of the processor it is interpreted. */
.text
.code16
.globl _start
_start:
  cli
  cld
  movw $0x1000, %ax
  movw %ax, %ds
  movl $1, %eax
  cpuid
  shrl $24, %ebx        /* the initial APIC id */
  movl %ebx, %ebp
  lgdtl (gdt_pointer - _start)
  movl $0x620, %eax     /* PAE, OSFXSR, OSXMMEXCPT */
  movl %eax, %cr4
  movl $0x2000, %eax
  movl %eax, %cr3
  movl $0xc0000080, %ecx
  movl $0x101, %eax     /* EFER: long mode, syscall */
  xorl %edx, %edx
  wrmsr
  movl $0x80000033, %eax /* paging, numeric errors, extension type, monitor coprocessor, protection */
  movl %eax, %cr0
  ljmpl $8, $long_mode
.code64
long_mode:
  movw $0x10, %ax
  movw %ax, %ds
  movw %ax, %es
  movw %ax, %ss
  xorl %eax, %eax
  movw %ax, %fs
  movw %ax, %gs
  /* 16 KiB of stack for each processor: the upper half for ring 3, the lower one for ring 0. */
  movl %ebp, %eax
  shll $14, %eax
  leaq stacks + 0x2000(%rax), %rsp
  /* Its task state segment, for the stack of ring 0, and for the ports that ring 3 may use. (The privilege level
   * in the flags would be enough, but KVM may drop it when it interprets iretq: seen with Linux 6.18 without
   * VMX, where the flags are 0x202 in ring 3 after 0x3002 was on the stack.) */
  movl %ebp, %edx
  shll $9, %edx
  leaq task_states(%rdx), %rdi
  movq %rsp, 4(%rdi)
  movw $0x68, 102(%rdi) /* the map of ports, all allowed, and its end: */
  movb $0xff, 0x168(%rdi)
  /* Descriptor 6 + 2 * processor */
  movl %ebp, %esi
  shll $4, %esi
  leaq gdt + 0x30(%rsi), %rsi
  movq %rdi, %rax
  andl $0xffffff, %eax
  shlq $16, %rax
  movq %rdi, %rdx
  shrq $24, %rdx
  andl $0xff, %edx
  shlq $56, %rdx
  orq %rdx, %rax
  movq $0x0000890000000168, %rdx
  orq %rdx, %rax
  movq %rax, (%rsi)
  movq $0, 8(%rsi)
  subq $gdt, %rsi
  ltr %si
  lidt idt_pointer(%rip)
  movl %ebp, %r12d
  testl %ebp, %ebp
  jnz 2f
  /* The first processor fills the table of interrupts: all gates may be used by ring 3 (int3, int $n). */
  leaq stubs(%rip), %rdx
  leaq idt(%rip), %rdi
  movl $256, %ecx
1: movl %edx, %eax
  andl $0xffff, %eax
  orl $0x80000, %eax
  movl %eax, (%rdi)
  movl %edx, %eax
  andl $0xffff0000, %eax
  orl $0xee00, %eax
  movl %eax, 4(%rdi)
  movq $0, 8(%rdi)
  addq $16, %rdi
  addq $16, %rdx
  decl %ecx
  jnz 1b
2: movl %r12d, %edi
  call prepare
  movl %r12d, %edi
  movl $work_returned, %edx
  cmpl $0, privilege(%rip)
  jne 3f
  pushq %rdx
  jmp work
3: movl %r12d, %eax
  shll $14, %eax
  leaq stacks + 0x3ff8(%rax), %rax
  movq %rdx, (%rax)
  pushq $0x23           /* to ring 3: ss, rsp, flags with IOPL 3, cs, rip */
  pushq %rax
  pushq flags(%rip)
  pushq $0x2b
  movl $work, %edx
  pushq %rdx
  iretq
work_returned:
  pause
  jmp work_returned

/* Interrupts and exceptions: a stub of 16 bytes for each vector; some exceptions have an error code. */
.balign 16
stubs:
vector = 0
.rept 256
  .balign 16
  .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
  .else
  pushq $0
  .endif
  pushq $vector
  jmp interrupted
  vector = vector + 1
.endr
interrupted:
  pushq %rax
  pushq %rcx
  pushq %rdx
  pushq %rbx
  pushq %rbp
  pushq %rsi
  pushq %rdi
  pushq %r8
  pushq %r9
  pushq %r10
  pushq %r11
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, %rdi
  movq %rsp, %rbx
  andq $-16, %rsp
  call interrupt
  movq %rbx, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %r11
  popq %r10
  popq %r9
  popq %r8
  popq %rdi
  popq %rsi
  popq %rbp
  popq %rbx
  popq %rdx
  popq %rcx
  popq %rax
  addq $16, %rsp
  iretq

.balign 16
/* null; code and data of ring 0; code (unused), data and code of ring 3; task states of eight processors */
gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0, 0x00cff3000000ffff, 0x00affb000000ffff
  .fill 16, 8, 0
gdt_pointer: .word . - gdt - 1
  .long gdt
.balign 16
idt_pointer: .word 4095
  .quad idt
.bss
.balign 4096
idt: .skip 4096
task_states: .skip 512 * 8
.balign 16
stacks: .skip 0x4000 * 8
