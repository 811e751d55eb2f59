// The code that a stopped task is made to execute. It is copied into the zero padding at the end of an executable
// mapping of the task (normally its vDSO) and must work at any address.
//
// Entry: r12 = array of calls, r13 = how many, rbx = 1 when results may be stored (the array is writable).
// A call is 64 bytes: number, six arguments, result. Bit 63 of the number: the first argument is the last result.
// At the end the task reports by sending itself a signal that it ignores: under a tracer that is a stop; when the
// tracer has died it is nothing, and the task goes on into `undo`, which gives the program its context back.
// So a tracer may die at any instant and the program does not notice. A program with handlers for all such signals
// sends itself signal 0, which is nothing in any case; its tracer then asks for a stop at each system call, and takes
// the one behind `stasis_stub_reported` for the report.
//
// No stack is used at all: the program's may be full, tiny, or in use below its pointer (red zone).

        .section .rodata
        .globl  stasis_stub_begin, stasis_stub_end, stasis_stub_context, stasis_stub_reported
        .balign 16
stasis_stub_begin:
next:
        test    %r13, %r13
        jz      report
        mov     (%r12), %rax
        mov     8(%r12), %rdi
        btr     $63, %rax
        jnc     1f
        mov     %r14, %rdi
1:      mov     16(%r12), %rsi
        mov     24(%r12), %rdx
        mov     32(%r12), %r10
        mov     40(%r12), %r8
        mov     48(%r12), %r9
        mov     %rax, %r15
        syscall
        test    %rax, %rax
        jnz     2f
        cmp     $56, %r15               // clone: in the child
        je      child
        cmp     $435, %r15              // clone3
        je      child
2:      mov     %rax, %r14
        test    %rbx, %rbx
        jz      3f
        mov     %rax, 56(%r12)
3:      add     $64, %r12
        dec     %r13
        jmp     next

report:
        mov     $234, %eax              // tgkill(tgid, tid, signal)
        mov     tgid(%rip), %edi
        mov     tid(%rip), %esi
        mov     signal(%rip), %edx
        syscall
stasis_stub_reported:

        // Nobody stopped us: undo what must not outlive the tracer, and go back to the program.
        mov     undo_calls(%rip), %r12
        mov     undo_count(%rip), %r13
undo:   test    %r13, %r13
        jz      unmap
        mov     (%r12), %rax
        mov     8(%r12), %rdi
        mov     16(%r12), %rsi
        mov     24(%r12), %rdx
        mov     32(%r12), %r10
        mov     40(%r12), %r8
        mov     48(%r12), %r9
        syscall
        add     $64, %r12
        dec     %r13
        jmp     undo
unmap:
        mov     scratch_size(%rip), %rsi
        test    %rsi, %rsi
        jz      mask
        mov     scratch(%rip), %rdi
        test    %rdi, %rdi
        jnz     4f
        mov     %r14, %rdi              // the tracer died before it learned where the scratch area is
        cmp     $-4096, %rdi
        jae     mask
4:      mov     $11, %eax               // munmap
        syscall
mask:
        mov     $14, %eax               // rt_sigprocmask(SIG_SETMASK, &saved, NULL, 8)
        mov     $2, %edi
        lea     saved_mask(%rip), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
        mov     saved_rbx(%rip), %rbx
        mov     saved_rcx(%rip), %rcx
        mov     saved_rdx(%rip), %rdx
        mov     saved_rsi(%rip), %rsi
        mov     saved_rdi(%rip), %rdi
        mov     saved_rbp(%rip), %rbp
        mov     saved_r8(%rip), %r8
        mov     saved_r9(%rip), %r9
        mov     saved_r10(%rip), %r10
        mov     saved_r11(%rip), %r11
        mov     saved_r12(%rip), %r12
        mov     saved_r13(%rip), %r13
        mov     saved_r14(%rip), %r14
        mov     saved_r15(%rip), %r15
        // Flags without a stack: direction first, then overflow by an addition, then the rest by sahf.
        cld
        cmpb    $0, direction(%rip)
        je      5f
        std
5:      mov     overflow(%rip), %al
        mov     low_flags(%rip), %ah
        add     $0x7f, %al
        sahf
        mov     saved_rax(%rip), %rax
        jmp     *saved_rip(%rip)

        // In a child that was cloned by a batch. The tracer normally stops it before its first instruction here. The
        // snapshot's helper runs on: it forgets the program's descriptors and forks the snapshot child, which is
        // stopped by the tracer at birth, or, when the tracer is dead, leaves at once.
child:
        mov     $436, %eax              // close_range(0, ~0, 0)
        xor     %edi, %edi
        mov     $-1, %esi
        xor     %edx, %edx
        syscall
        mov     $56, %eax               // clone(CLONE_PTRACE | CLONE_FILES), no exit signal
        mov     $0x2400, %edi
        xor     %esi, %esi
        xor     %edx, %edx
        xor     %r10d, %r10d
        xor     %r8d, %r8d
        syscall
        mov     %eax, %edi              // exit_group(1 when the clone failed)
        shr     $31, %edi
        mov     $231, %eax
        syscall
        ud2

        .balign 8
stasis_stub_context:                    // struct StubContext in executor.cpp
saved_rax:      .quad 0
saved_rbx:      .quad 0
saved_rcx:      .quad 0
saved_rdx:      .quad 0
saved_rsi:      .quad 0
saved_rdi:      .quad 0
saved_rbp:      .quad 0
saved_r8:       .quad 0
saved_r9:       .quad 0
saved_r10:      .quad 0
saved_r11:      .quad 0
saved_r12:      .quad 0
saved_r13:      .quad 0
saved_r14:      .quad 0
saved_r15:      .quad 0
saved_rip:      .quad 0
saved_mask:     .quad 0
scratch:        .quad 0
scratch_size:   .quad 0
undo_calls:     .quad 0
undo_count:     .quad 0
tgid:           .long 0
tid:            .long 0
signal:         .long 0
overflow:       .byte 0
low_flags:      .byte 0
direction:      .byte 0
                .byte 0
host_task:      .quad 0                 // whose stub this is, as the tracer knows it
first_call:     .fill 64, 1, 0          // one call that fits before there is a scratch area
stasis_stub_end:
        .section .note.GNU-stack,"",@progbits
