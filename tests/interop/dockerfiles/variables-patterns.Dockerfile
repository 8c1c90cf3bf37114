FROM base
ENV S=foobarbaz
ENV A=${S#f*b} B=${S##f*b} C=${S%b*} D=${S%%b*} E=${S/ba/fo} F=${S//ba/fo}
