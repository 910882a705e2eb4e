package extension

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/openloganalytics/agent/internal/atomicfile"
)

// ErrNoSettings is the cause when the guest agent left no settings: no file,
// or the empty one that it writes for an extension deployed without any.
var ErrNoSettings = errors.New("the extension was deployed without settings; deploy it with settings")

// CurrentSequence returns the number of the settings in force: the guest
// agent's word, or else the newest settings file. The newest is not the
// highest: numbers can start again at 0. Without any file the error is
// ErrNoSettings. env may be nil.
func CurrentSequence(env *Environment, guest GuestAgent) (int, error) {
	if guest.HasSequence {
		return guest.SequenceNumber, nil
	}
	if env == nil {
		return 0, ErrNoSettings
	}
	return newestSettings(env.ConfigFolder, guest.ExtensionName)
}

// newestSettings goes by modification time; of two files with the same time
// the higher number wins.
func newestSettings(configFolder, extensionName string) (int, error) {
	entries, err := os.ReadDir(configFolder)
	if err != nil {
		return 0, fmt.Errorf("look for settings: %w", err)
	}
	newest, newestTime := -1, time.Time{}
	for _, entry := range entries {
		n, ok := sequenceOf(entry.Name(), extensionName)
		if !ok {
			continue
		}
		info, err := entry.Info()
		if err != nil {
			return 0, fmt.Errorf("look for settings: %w", err)
		}
		order := info.ModTime().Compare(newestTime)
		if newest < 0 || order > 0 || order == 0 && n > newest {
			newest, newestTime = n, info.ModTime()
		}
	}
	if newest < 0 {
		return 0, fmt.Errorf("look for settings in %s: %w", configFolder, ErrNoSettings)
	}
	return newest, nil
}

// sequenceOf returns the number in the name of a settings file of this
// extension.
func sequenceOf(file, extensionName string) (int, bool) {
	text, ok := strings.CutSuffix(file, ".settings")
	if !ok {
		return 0, false
	}
	if extensionName != "" {
		if text, ok = strings.CutPrefix(text, extensionName+"."); !ok {
			return 0, false
		}
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= 0 && text == strconv.Itoa(n)
}

// sequenceFile names the file of one number: 3.settings, or name.3.settings
// for one of several extensions.
func sequenceFile(extensionName string, seq int, suffix string) string {
	name := strconv.Itoa(seq) + suffix
	if extensionName != "" {
		name = extensionName + "." + name
	}
	return name
}

// appliedFile is where all Azure handlers keep the last applied number. The
// guest agent copies it to the new version's folder in an update.
const appliedFile = "mrseq"

// LastApplied returns the number that SetLastApplied kept; ok is false when
// there is none yet.
func LastApplied(handlerDir string) (seq int, ok bool, err error) {
	data, err := atomicfile.ReadLimited(filepath.Join(handlerDir, appliedFile), 64)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read last applied settings number: %w", err)
	}
	seq, err = strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || seq < 0 {
		return 0, false, fmt.Errorf("read last applied settings number: %s holds no number", appliedFile)
	}
	return seq, true, nil
}

// SetLastApplied keeps the number of settings that are in force now. It is
// called after they were applied, never before: a crash in between applies
// them again.
func SetLastApplied(handlerDir string, seq int) error {
	path := filepath.Join(handlerDir, appliedFile)
	if err := atomicfile.Write(path, []byte(strconv.Itoa(seq)), 0o600); err != nil {
		return fmt.Errorf("keep last applied settings number: %w", err)
	}
	return nil
}
