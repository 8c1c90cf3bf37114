FROM base
ENV one=1 two="a b" three=a\ b
ENV old style value
ENV one=2 four=$one
ENV five=${four:+yes}${none:-no}${two-x}${none+y}
