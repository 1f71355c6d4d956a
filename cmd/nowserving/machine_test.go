//go:build linux && amd64

package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A machine whose clock is wrong. The kernel has no clock for one process, but
// programs read the time from a small library that it maps into each of them (the
// vDSO), and the test writes another function over the one in the node's copy.

// wrongTime is clock_gettime with seconds added to the wall clock: a system call,
// and for CLOCK_REALTIME the number at offset 24 added to the result.
var wrongTime = []byte{
	0xb8, 228, 0, 0, 0, // mov eax, SYS_clock_gettime
	0x0f, 0x05, // syscall
	0x85, 0xff, // test edi, edi
	0x75, 0x0a, // jnz ret
	0x48, 0x8b, 0x0d, 6, 0, 0, 0, // mov rcx, [rip+6]
	0x48, 0x01, 0x0e, // add [rsi], rcx
	0xc3, // ret
	0x90, 0x90,
}

// startOff starts a command on a machine whose clock is off.
func startOff(cmd *exec.Cmd, offset time.Duration) error {
	// The node is stopped before its first instruction, which only the thread
	// that started it can do.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &status, 0, nil); err != nil || !status.Stopped() {
		return fmt.Errorf("the process did not stop: %v, %w", status, err)
	}
	return errors.Join(writeClock(cmd.Process.Pid, 0, wrongTime), setClock(cmd.Process.Pid, offset), syscall.PtraceDetach(cmd.Process.Pid))
}

// setClock sets how far the clock is off.
func setClock(pid int, offset time.Duration) error {
	seconds := int64(offset / time.Second)
	return writeClock(pid, int64(len(wrongTime)), binary.LittleEndian.AppendUint64(nil, uint64(seconds)))
}

// writeClock writes over a process's clock_gettime.
func writeClock(pid int, at int64, data []byte) error {
	start, end, err := vdso(pid)
	if err != nil {
		return err
	}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer memory.Close() //nolint:errcheck // it is no file
	image := make([]byte, end-start)
	if _, err := memory.ReadAt(image, start); err != nil {
		return fmt.Errorf("read the vDSO: %w", err)
	}
	library, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return err
	}
	symbols, err := library.DynamicSymbols()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == "__vdso_clock_gettime" })
	if i < 0 || symbols[i].Size < uint64(len(wrongTime)+8) {
		return errors.New("there is no clock_gettime to write over")
	}
	_, err = memory.WriteAt(data, start+int64(symbols[i].Value)+at)
	return err
}

// vdso is where the library is in a process.
func vdso(pid int) (start, end int64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "[vdso]") {
			_, err := fmt.Sscanf(line, "%x-%x", &start, &end)
			return start, end, err
		}
	}
	return 0, 0, errors.New("the process has no vDSO")
}
