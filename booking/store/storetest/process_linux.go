package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// endWithParent has the kernel kill the command when the thread that started
// it ends, so that a test binary that crashes leaves no server behind.
func endWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}

// frozen returns nil once the process is stopped by a signal.
func frozen(pid int) error {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return err
	}
	// The state follows the program's name, which stands in parentheses.
	_, state, _ := bytes.Cut(stat, []byte(") "))
	if !bytes.HasPrefix(state, []byte("T")) {
		return errors.New("the process still runs")
	}
	return nil
}
