"""ELDER as a method of PEFT: imported only when PEFT is used."""
