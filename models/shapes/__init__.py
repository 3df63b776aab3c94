"""The bundled world `shapes`: scenes, captions, judge, learned detector, weights and the programs that train them."""
